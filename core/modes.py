"""Names, thresholds and limits that command lines and parameters show; importable without torch."""

MODES = ('consistent', 'reference', 'causal')
"""Positions and attention of the query blocks (see core/model/token_layout.py).

consistent: as the model was trained. reference: bit-faithful to the authors' inference code. causal: the ablation
without the hybrid attention mask.
"""

INFERENCE_MODES = MODES[:2]
"""The modes that are offered outside ablations."""

DTYPES = ('auto', 'float32', 'bfloat16', 'float16')
"""Precisions of the weights.

auto is bfloat16 on CUDA, and float16 where the GPU lacks it. On CPUs it is float32, but for large models bfloat16 where
the CPU has instructions for it (core/device.py).
"""

COMPILE = ('auto', 'off', 'graphs', 'inductor')
"""Ways of running the network (see core/model/graphs).

off: one operation after the other. graphs: stages of fixed shapes, replayed as CUDA graphs. inductor: these stages
compiled by torch's inductor, and on CUDA replayed as graphs. auto: graphs on CUDA if they give the same results,
otherwise off.
"""

DUPLICATE_IOU = 0.8
"""Mask IoU above which the lower-scored of two instances counts as a duplicate."""

MAX_MEGAPIXELS = 64.0
"""Default limit of the size of an image, in millions of pixels; an 8K image has 33."""

MAX_MEGAPIXELS_RANGE = (0.01, 178.0)
"""Values that the limit may have; Pillow opens no larger images."""

IMAGE_ENDINGS = ('.jpg', '.jpeg', '.png', '.webp', '.gif', '.bmp', '.tif', '.tiff', '.ppm')
VIDEO_ENDINGS = ('.mp4', '.mov', '.avi', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')
"""Endings of the files that are searched for in a folder; any other file that is named counts as an image."""
