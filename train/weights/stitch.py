"""`instructsam train stitch MODEL BEFORE OUT`: image encoders that learned alone, for what read them before.

Alone, an encoder is free to say the same in other terms and at any scale. Linear maps, by least squares over some
pictures, turn what it says now into what it said before (stitching, arXiv 1411.5908), as far as that goes. They are
folded into the layers at its end, so that the graph stays what it is.
"""

from pathlib import Path

import torch

from instructsam.core.errors import InstructSAMError
from instructsam.core.image_file import read_image
from instructsam.core.model import checkpoint
from instructsam.core.model.preprocess import QwenPreprocessor, sam_pixels, to_chw
from instructsam.train.weights.merge import new_folder

PICTURES = 256


def add_arguments(parser):
    parser.add_argument('model', metavar='MODEL', help='a final folder or checkpoint whose encoders have learned alone')
    parser.add_argument('before', metavar='BEFORE', help='the model folder that they started from')
    parser.add_argument('out', metavar='OUT', help='the folder to write')
    parser.add_argument('--images', required=True, metavar='FOLDER', help=f'of *.jpg; the first {PICTURES} are used')


def run(args):
    images = sorted(Path(args.images).glob('*.jpg'))[:PICTURES]
    if not images:
        raise InstructSAMError(f'there are no *.jpg in {args.images}')
    stitch(args.model, args.before, args.out, images)
    print(f'the stitched model is in {args.out}')
    return 0


@torch.no_grad()
def stitch(source, before, out, images):
    """Writes the model in the folder `source`, stitched to what the one in `before` says, to a new folder `out`.

    images: paths of pictures, enough that their tokens outnumber the channels. Raises ModelError.
    """
    out = new_folder(out)
    model, old = (checkpoint.load(Path(folder), torch.device('cpu'), torch.float32) for folder in (source, before))
    features, wanted = _features(model, source, images), _features(old, before, images)
    levels, visual = model.grounding.vision_encoder.neck.fpn_layers, model.model.visual
    _turn_input([level.scale_layers[0] for level in levels[:2]], features.pop('backbone'), wanted.pop('backbone'))
    last = {'coarse': levels[2].proj2, 'tokens': visual.merger.linear_fc2}
    last |= {f'deepstack {index}': merger.linear_fc2 for index, merger in enumerate(visual.deepstack_merger_list)}
    for name, values in features.items():
        _turn_output(last[name], values, wanted[name])
    checkpoint.save(model, out, source)


def _features(model, folder, images):
    """What the encoders say of all pictures, {name: [tokens, channels] float64}: SAM3's backbone and coarsest level,
    Qwen's tokens and deepstack features.
    """
    sam, preprocessor = model.grounding, QwenPreprocessor.from_folder(folder)
    found = []
    for image in images:
        chw = to_chw(read_image(image))
        backbone = sam.backbone_grid(sam_pixels(chw, sam.image_size, 'cpu', torch.float32))
        coarse = sam.vision_encoder.neck.fpn_layers[2](backbone)
        patches, grid = preprocessor(chw, 'cpu', torch.float32)
        tokens, deepstack = model.encode_image(patches, grid)
        found.append(
            {
                'backbone': backbone[0].flatten(1).T,
                'coarse': coarse[0].flatten(1).T,
                'tokens': tokens,
                **{f'deepstack {index}': values for index, values in enumerate(deepstack)},
            }
        )
    return {name: torch.cat([each[name].double() for each in found]) for name in found[0]}


def _turn_input(layers, values, wanted):
    """Makes transposed convolutions, which have no place for a constant, take `values` for `wanted`."""
    if torch.equal(values, wanted):
        return
    matrix = torch.linalg.lstsq(values, wanted).solution.float()
    for layer in layers:
        layer.weight.copy_(torch.einsum('ij,jokl->iokl', matrix, layer.weight))


def _turn_output(layer, values, wanted):
    """Makes a linear layer or a convolution that says `values` say `wanted`."""
    if torch.equal(values, wanted):
        return
    affine = torch.linalg.lstsq(torch.cat([values, torch.ones_like(values[:, :1])], dim=1), wanted).solution.float()
    matrix, constant = affine[:-1], affine[-1]
    layer.weight.copy_(torch.einsum('io,i...->o...', matrix, layer.weight))
    layer.bias.copy_(layer.bias @ matrix + constant)
