"""Compares a configuration with the tensors of its file before any module is built.

Building modules of absurd sizes takes minutes and all memory, so that every number that decides a size is compared with
the shapes in the header of the weights first. The few that leave no trace in a shape have to be in a range.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from transformers.activations import ACT2FN
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig, Qwen3VLVisionConfig
from transformers.models.sam3 import configuration_sam3 as sam3_configs

from instructsam.core.errors import ModelError
from instructsam.core.model.config import MAX_IMAGE_SIDE, ModelConfig
from instructsam.core.model.trunk import COARSE_CHANNELS, STRIDE
from instructsam.core.text import one_line

Shapes = Mapping[str, tuple[int, ...]]

MAX_POSITIONS = 1 << 22
DEFAULT_SECTIONS = [24, 20, 20]  # transformers' default sections of M-RoPE

_LANGUAGE, _VISION, _SAM3 = 'model.language_model.', 'model.visual.', 'model.grounding_model.model.'
_BACKBONE = f'{_SAM3}vision_encoder.backbone.'
_NECK, _GEOMETRY = f'{_SAM3}vision_encoder.neck.', f'{_SAM3}geometry_encoder.'
_ENCODER, _DECODER, _MASKS = f'{_SAM3}detr_encoder.', f'{_SAM3}detr_decoder.', f'{_SAM3}mask_decoder.'


class _Size(NamedTuple):
    """A number in the configuration, and the dimension of a tensor that has to equal it."""

    part: str  # configuration that holds it, see _parts
    key: str
    tensor: str  # name of a tensor; with `axis` None, prefix of the numbered modules that are counted
    axis: int | None
    value: Callable[[Any], int] | None = None  # computes the number from the part; None: attribute `key`


def _heads(key: str) -> Callable[[Any], int]:
    return lambda config: getattr(config, key) * config.head_dim


_SIZES = (
    _Size('text_config', 'vocab_size', f'{_LANGUAGE}embed_tokens.weight', 0),
    _Size('text_config', 'hidden_size', f'{_LANGUAGE}embed_tokens.weight', 1),
    _Size('text_config', 'num_hidden_layers', f'{_LANGUAGE}layers.', None),
    _Size('text_config', 'intermediate_size', f'{_LANGUAGE}layers.0.mlp.gate_proj.weight', 0),
    _Size('text_config', 'head_dim', f'{_LANGUAGE}layers.0.self_attn.q_norm.weight', 0),
    _Size(
        'text_config',
        'num_attention_heads x head_dim',
        f'{_LANGUAGE}layers.0.self_attn.q_proj.weight',
        0,
        _heads('num_attention_heads'),
    ),
    _Size(
        'text_config',
        'num_key_value_heads x head_dim',
        f'{_LANGUAGE}layers.0.self_attn.k_proj.weight',
        0,
        _heads('num_key_value_heads'),
    ),
    _Size('vision_config', 'hidden_size', f'{_VISION}patch_embed.proj.weight', 0),
    _Size('vision_config', 'in_channels', f'{_VISION}patch_embed.proj.weight', 1),
    _Size('vision_config', 'temporal_patch_size', f'{_VISION}patch_embed.proj.weight', 2),
    _Size('vision_config', 'patch_size', f'{_VISION}patch_embed.proj.weight', 3),
    _Size('vision_config', 'depth', f'{_VISION}blocks.', None),
    _Size('vision_config', 'intermediate_size', f'{_VISION}blocks.0.mlp.linear_fc1.weight', 0),
    _Size('vision_config', 'num_position_embeddings', f'{_VISION}pos_embed.weight', 0),
    _Size(
        'vision_config',
        'hidden_size x spatial_merge_size^2',
        f'{_VISION}merger.linear_fc1.weight',
        1,
        lambda config: config.hidden_size * config.spatial_merge_size**2,
    ),
    _Size('vision_config', 'out_hidden_size', f'{_VISION}merger.linear_fc2.weight', 0),
    _Size(
        'vision_config',
        'number of deepstack_visual_indexes',
        f'{_VISION}deepstack_merger_list.',
        None,
        lambda config: len(config.deepstack_visual_indexes),
    ),
    _Size('', 'max_seg_nums', 'model.mask_queries', 0, lambda config: config.num_queries),
    _Size('', 'out_dim', 'model.mask_hidden_fcs.0.2.weight', 0, lambda config: config.bridge_dim),
    _Size('backbone_config', 'hidden_size', f'{_BACKBONE}embeddings.patch_embeddings.projection.weight', 0),
    _Size('backbone_config', 'num_channels', f'{_BACKBONE}embeddings.patch_embeddings.projection.weight', 1),
    _Size('backbone_config', 'patch_size', f'{_BACKBONE}embeddings.patch_embeddings.projection.weight', 2),
    _Size(
        'backbone_config',
        '(pretrain_image_size / patch_size)^2',
        f'{_BACKBONE}embeddings.position_embeddings',
        1,
        lambda config: (config.pretrain_image_size // config.patch_size) ** 2,
    ),
    _Size('backbone_config', 'num_hidden_layers', f'{_BACKBONE}layers.', None),
    _Size('backbone_config', 'intermediate_size', f'{_BACKBONE}layers.0.mlp.fc1.weight', 0),
    _Size('sam3 vision_config', 'fpn_hidden_size', f'{_NECK}fpn_layers.0.proj1.weight', 0),
    _Size(
        'sam3 vision_config',
        'number of scale_factors',
        f'{_NECK}fpn_layers.',
        None,
        lambda config: len(config.scale_factors),
    ),
    _Size('sam3 text_config', 'hidden_size', f'{_SAM3}text_projection.weight', 1),
    _Size('geometry_encoder_config', 'hidden_size', f'{_GEOMETRY}cls_embed.weight', 1),
    _Size('geometry_encoder_config', 'num_layers', f'{_GEOMETRY}layers.', None),
    _Size('geometry_encoder_config', 'intermediate_size', f'{_GEOMETRY}layers.0.mlp.fc1.weight', 0),
    _Size('geometry_encoder_config', 'roi_size', f'{_GEOMETRY}boxes_pool_project.weight', 2),
    _Size('detr_encoder_config', 'hidden_size', f'{_ENCODER}layers.0.mlp.fc1.weight', 1),
    _Size('detr_encoder_config', 'num_layers', f'{_ENCODER}layers.', None),
    _Size('detr_encoder_config', 'intermediate_size', f'{_ENCODER}layers.0.mlp.fc1.weight', 0),
    _Size('detr_decoder_config', 'hidden_size', f'{_DECODER}layers.0.mlp.fc1.weight', 1),
    _Size('detr_decoder_config', 'num_layers', f'{_DECODER}layers.', None),
    _Size('detr_decoder_config', 'intermediate_size', f'{_DECODER}layers.0.mlp.fc1.weight', 0),
    _Size('detr_decoder_config', 'num_attention_heads', f'{_DECODER}box_rpb_embed_x.layer2.weight', 0),
    _Size('mask_decoder_config', 'hidden_size', f'{_MASKS}instance_projection.weight', 0),
    _Size('mask_decoder_config', 'num_upsampling_stages', f'{_MASKS}pixel_decoder.conv_layers.', None),
)

_CLASSES = {
    'text_config': Qwen3VLTextConfig,
    'vision_config': Qwen3VLVisionConfig,
    'sam3 vision_config': sam3_configs.Sam3VisionConfig,
    'backbone_config': sam3_configs.Sam3ViTConfig,
    'geometry_encoder_config': sam3_configs.Sam3GeometryEncoderConfig,
    'detr_encoder_config': sam3_configs.Sam3DETREncoderConfig,
    'detr_decoder_config': sam3_configs.Sam3DETRDecoderConfig,
    'mask_decoder_config': sam3_configs.Sam3MaskDecoderConfig,
}


def check_config(config: ModelConfig, shapes: Shapes) -> None:
    """Check that modules built from a configuration are of the sizes of the tensors.

    Args:
        config: A model's configuration.
        shapes: Shapes of its tensors by name, from the header of their file.

    Raises:
        ModelError: A number of the configuration contradicts the tensors (the message names both), is not a number, or
            is out of range.
    """
    try:
        parts = _parts(config)
        for size in _SIZES:
            _check_size(size, parts[size.part], shapes)
        for name in _CLASSES:
            _check_part(name, parts[name])
        _check_positions(parts['text_config'])
        _check_image_sizes(parts)
        if config.trunk is not None:
            _check_trunk(config.trunk.image_size, parts)
    except (AttributeError, TypeError, ValueError, ArithmeticError) as error:  # a part of another type than expected
        raise ModelError(f'config.json does not describe an InstructSAM model: {one_line(error)}') from error


def _parts(config: ModelConfig) -> dict[str, Any]:
    sam3: Any = config.sam3
    parts = {
        '': config,
        'text_config': config.text,
        'vision_config': config.vision,
        'sam3 text_config': sam3.text_config,
        'sam3 vision_config': sam3.vision_config,
        'backbone_config': getattr(sam3.vision_config, 'backbone_config', None),
        **{f'{name}_config': getattr(sam3, f'{name}_config') for name in _SAM3_PARTS},
    }
    for name, expected in _CLASSES.items():
        if type(parts[name]) is not expected:
            raise ModelError(f'the configuration has a {type(parts[name]).__name__} as {name}, not {expected.__name__}')
    return parts


_SAM3_PARTS = ('geometry_encoder', 'detr_encoder', 'detr_decoder', 'mask_decoder')


def _check_size(size: _Size, config: Any, shapes: Shapes) -> None:
    stated = size.value(config) if size.value else getattr(config, size.key)
    if size.axis is None:
        numbered = re.compile(re.escape(size.tensor) + r'(\d+)\.')
        found = len({match[1] for name in shapes if (match := numbered.match(name))})
        where = f'{size.tensor}N'
    elif size.tensor not in shapes:
        raise ModelError(f'the tensors do not fit config.json.\n1 missing:\n  {size.tensor}')
    else:
        shape = shapes[size.tensor]
        found = shape[size.axis] if size.axis < len(shape) else 0
        where = f'{size.tensor} {list(shape)}'
    if type(stated) is not int or stated != found:
        key = f'{size.part}: {size.key}' if size.part else size.key
        raise ModelError(f'{key} is {str(stated)[:60]} in the configuration, {found} in the tensors ({where})')


def _check_part(name: str, config: Any) -> None:
    """Check the numbers of a configuration that are the same in models of all sizes."""
    # In the vision tower of Qwen; not every release of transformers has it as num_attention_heads, too.
    key = 'num_heads' if hasattr(config, 'num_heads') else 'num_attention_heads'
    heads = getattr(config, key, 1)
    width = config.head_dim * heads if hasattr(config, 'head_dim') else getattr(config, 'hidden_size', heads)
    if type(heads) is not int or heads < 1 or width % heads:
        raise ModelError(f'{name}: {key} is {heads!r}, expected a divisor of the width {width}')
    groups = getattr(config, 'num_key_value_heads', 1)
    if type(groups) is not int or groups < 1 or heads % groups:
        raise ModelError(f'{name}: num_key_value_heads is {groups!r}, expected a divisor of {heads}')
    activation = getattr(config, 'hidden_act', 'gelu')
    if activation not in ACT2FN:
        raise ModelError(f'{name}: hidden_act is {activation!r}, which transformers does not have')
    for key in ('layer_norm_eps', 'rms_norm_eps'):
        epsilon = getattr(config, key, 1e-6)
        if not isinstance(epsilon, float) or not 0 < epsilon < 1:
            raise ModelError(f'{name}: {key} is {epsilon!r}, expected a number between 0 and 1')
    positions = getattr(config, 'max_position_embeddings', 1)
    if type(positions) is not int or not 1 <= positions <= MAX_POSITIONS:
        raise ModelError(f'{name}: max_position_embeddings is {positions!r}, expected 1 to {MAX_POSITIONS}')


def _check_positions(text: Any) -> None:
    """Check the rotary position embedding of the language model (Qwen3-VL's M-RoPE)."""
    rope = text.rope_parameters
    sections, theta = rope.get('mrope_section', DEFAULT_SECTIONS), rope.get('rope_theta')
    is_sections = isinstance(sections, list) and len(sections) == 3 and all(type(n) is int and n > 0 for n in sections)
    if not is_sections or sum(sections) != text.head_dim // 2:
        raise ModelError(
            f'text_config: mrope_section is {str(sections)[:60]}, expected 3 numbers of the sum {text.head_dim // 2}'
        )
    if type(theta) not in (int, float) or theta < 1:
        raise ModelError(f'text_config: rope_theta is {str(theta)[:60]}, expected a number of at least 1')


def _check_image_sizes(parts: Mapping[str, Any]) -> None:
    backbone, vision = parts['backbone_config'], parts['vision_config']
    side, patch = backbone.image_size, backbone.patch_size
    if type(side) is not int or not patch <= side <= MAX_IMAGE_SIDE or side % patch:
        raise ModelError(
            f'backbone_config: image_size is {side!r}, expected a multiple of patch_size {patch} up to {MAX_IMAGE_SIDE}'
        )
    if type(backbone.window_size) is not int or not 1 <= backbone.window_size <= side // patch:
        raise ModelError(f'backbone_config: window_size is {backbone.window_size!r}, expected 1 to {side // patch}')
    grid = math.isqrt(vision.num_position_embeddings)
    if grid * grid != vision.num_position_embeddings:
        raise ModelError(f'vision_config: num_position_embeddings {vision.num_position_embeddings} is not a square')
    if vision.hidden_size // vision.num_heads % 4:  # the rotary embedding turns pairs, by their row or by their column
        raise ModelError(
            f'vision_config: num_heads is {vision.num_heads}, expected heads of a multiple of 4 numbers of the width '
            f'{vision.hidden_size}'
        )
    depths = vision.deepstack_visual_indexes
    if len(set(depths)) != len(depths) or any(type(i) is not int or not 0 <= i < vision.depth for i in depths):
        raise ModelError(f'vision_config: deepstack_visual_indexes {list(depths)[:20]} are not different layers')
    if len(depths) > parts['text_config'].num_hidden_layers:
        raise ModelError(f'vision_config: {len(depths)} deepstack_visual_indexes for fewer layers of text_config')
    if list(parts['sam3 vision_config'].scale_factors) != [4.0, 2.0, 1.0, 0.5]:
        raise ModelError('sam3 vision_config: scale_factors are not 4, 2, 1 and 0.5')


def _check_trunk(image_size: int, parts: Mapping[str, Any]) -> None:
    """Check that both encoders read the trunk's coarsest map, cell by cell."""
    merge = parts['vision_config'].spatial_merge_size
    if type(merge) is not int or merge < 1 or image_size % (STRIDE * merge):
        raise ModelError(
            f'trunk: image_size is {image_size}, expected a multiple of {STRIDE} x spatial_merge_size {merge}'
        )
    for part, key, expected in (
        ('backbone_config', 'image_size', image_size // STRIDE),
        ('backbone_config', 'patch_size', 1),
        ('backbone_config', 'num_channels', COARSE_CHANNELS),
        ('vision_config', 'patch_size', 1),
        ('vision_config', 'temporal_patch_size', 1),
        ('vision_config', 'in_channels', COARSE_CHANNELS),
    ):
        stated = getattr(parts[part], key)
        if stated != expected:
            raise ModelError(f'{part}: {key} is {stated!r}, expected {expected} behind a trunk of {image_size} px')
