"""Names and thresholds that command lines and parameters show; importable without torch."""

MODES = ('consistent', 'reference', 'causal')
"""Arithmetic of the query blocks (see core/model/token_layout.py).

consistent: as the model was trained. reference: bit-faithful to the authors' inference code. causal: the ablation
without the hybrid attention mask.
"""

INFERENCE_MODES = MODES[:2]
"""The modes that are offered outside ablations."""

DTYPES = ('auto', 'float32', 'bfloat16', 'float16')
"""Precisions of the weights; auto is bfloat16 on CUDA, float16 where the GPU lacks it, float32 on CPU."""

DUPLICATE_IOU = 0.8
"""Mask IoU above which the lower-scored of two instances counts as a duplicate."""
