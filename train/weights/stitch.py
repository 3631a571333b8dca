"""`instructsam train stitch MODEL BEFORE OUT`: make further trained image encoders fit the modules that read them.

An encoder that is trained without its readers may represent the same content in other directions and at another scale.
Linear maps, fitted by least squares on some images, turn its features back into those before training (stitching, arXiv
1411.5908), as far as possible. They are folded into the encoders' last layers, so that the graph stays the same.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from instructsam.core.atomic_write import new_folder
from instructsam.core.files.image_file import read_image
from instructsam.core.model import checkpoint
from instructsam.core.model.instructsam import InstructSAMModel
from instructsam.core.model.preprocess import load_preprocessor, sam_pixels, to_chw


@torch.no_grad()
def stitch(source: str | Path, before: str | Path, out: str | Path, images: Sequence[Path]) -> None:
    """Write the model in the folder `source`, with features like those of the model in `before`, to a new folder.

    Args:
        source: Model folder whose encoders were trained further.
        before: Model folder that they started from.
        out: Folder to write.
        images: Image files; their tokens must outnumber the channels.

    Raises:
        ModelError: A model cannot be read, or `out` already exists.
    """
    with new_folder(out) as part:
        model, old = (checkpoint.load(folder, torch.device('cpu'), torch.float32) for folder in (source, before))
        features, wanted = _features(model, source, images), _features(old, before, images)
        levels: Any = model.grounding.vision_encoder.neck.fpn_layers
        visual = model.model.visual
        _map_inputs([level.scale_layers[0] for level in levels[:2]], features.pop('backbone'), wanted.pop('backbone'))
        last = {'coarse': levels[2].proj2, 'tokens': visual.merger.linear_fc2}
        last |= {f'deepstack {index}': merger.linear_fc2 for index, merger in enumerate(visual.deepstack_merger_list)}
        for name, values in features.items():
            _map_outputs(last[name], values, wanted[name])
        checkpoint.save(model, part, source)


def _features(model: InstructSAMModel, folder: str | Path, images: Sequence[Path]) -> dict[str, torch.Tensor]:
    """Return the encoders' features of all images, {name: [tokens, channels] float64}.

    They are SAM3's backbone and coarsest level, and Qwen's tokens and deepstack features.
    """
    sam, preprocessor = model.grounding, load_preprocessor(folder, model.config)
    features = []
    for image in images:
        chw = to_chw(read_image(image))
        pixels = sam_pixels(chw, model.config.image_size, 'cpu', torch.float32)
        patches, grid = preprocessor(chw, 'cpu', torch.float32)
        inputs = model.encoder_inputs(pixels, patches, [grid])
        backbone = sam.backbone_grid(inputs.pixels)
        coarse = sam.vision_encoder.neck.fpn_layers[2](backbone)
        tokens, deepstack = model.encode_image(inputs.patches, grid)
        features.append(
            {
                'backbone': backbone[0].flatten(1).T,
                'coarse': coarse[0].flatten(1).T,
                'tokens': tokens,
                **{f'deepstack {index}': values for index, values in enumerate(deepstack)},
            }
        )
    return {name: torch.cat([each[name].double() for each in features]) for name in features[0]}


def _map_inputs(layers: Sequence[nn.ConvTranspose2d], values: torch.Tensor, wanted: torch.Tensor) -> None:
    """Make transposed convolutions give for inputs `values` what they gave for `wanted`, both [tokens, channels].

    The map has no constant term, because such a layer cannot absorb one from its input.
    """
    if torch.equal(values, wanted):
        return
    matrix = torch.linalg.lstsq(values, wanted).solution.float()
    for layer in layers:
        layer.weight.copy_(torch.einsum('ij,jokl->iokl', matrix, layer.weight))


def _map_outputs(layer: nn.Linear | nn.Conv2d, values: torch.Tensor, wanted: torch.Tensor) -> None:
    """Make a layer with outputs `values` give `wanted` instead, both [tokens, channels]."""
    if torch.equal(values, wanted):
        return
    affine = torch.linalg.lstsq(torch.cat([values, torch.ones_like(values[:, :1])], dim=1), wanted).solution.float()
    matrix, constant = affine[:-1], affine[-1]
    layer.weight.copy_(torch.einsum('io,i...->o...', matrix, layer.weight))
    assert layer.bias is not None
    layer.bias.copy_(layer.bias @ matrix + constant)
