"""Writes the model folder that training of the small model starts from: a pretrained trunk and random weights.

    python -m instructsam.train.weights.small_model OUT

The tokenizer is like Qwen's (byte-level BPE with the same pre-tokenisation and special tokens). It is trained here on
the words that the training split of the tabletop world uses, so that every call writes the same files.
"""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from instructsam.core.atomic_write import new_folder
from instructsam.core.model.checkpoint import SINGLE, write_tensors
from instructsam.core.model.config import TRUNKS, ModelConfig
from instructsam.core.model.instructsam import InstructSAMModel
from instructsam.core.model.trunk import COARSE_CHANNELS, STRIDE, Trunk
from instructsam.train.tabletop.language import words
from instructsam.train.tabletop.language.intents import INTENTS
from instructsam.train.tabletop.world.looks import COLORS
from instructsam.train.weights.initialise import initialise
from instructsam.train.weights.trunk import read_lite0, trunk_weights

VOCABULARY = 2048  # byte-level BPE entries, before the special tokens
SIDE = 384  # side of the image that the trunk reads, px
# Qwen's own tokens in Qwen's order, followed by the four that InstructSAM adds.
SPECIAL = [
    '<|endoftext|>',
    '<|im_start|>',
    '<|im_end|>',
    '<|object_ref_start|>',
    '<|object_ref_end|>',
    '<|box_start|>',
    '<|box_end|>',
    '<|quad_start|>',
    '<|quad_end|>',
    '<|vision_start|>',
    '<|vision_end|>',
    '<|vision_pad|>',
    '<|image_pad|>',
    '<|video_pad|>',
    '<REGION>',
    '[SEG]',
    '<|mask_start|>',
    '<|mask_end|>',
]
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.content is string %}{{- message.content }}
{%- else %}
{%- for part in message.content %}
{%- if part.type == 'image' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif part.type == 'text' %}{{- part.text }}
{%- endif %}
{%- endfor %}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""

# Words beyond the tabletop world, for instructions about other objects.
MORE = [
    'cup',
    'jar',
    'pot',
    'kettle',
    'towel',
    'tape',
    'key',
    'phone',
    'remote',
    'toy',
    'car',
    'block',
    'cube',
    'brick',
    'basket',
    'drawer',
    'sink',
    'table',
    'shelf',
    'counter',
    'bin',
    'toothbrush',
    'hammer',
    'screwdriver',
    'wrench',
    'drill',
    'glove',
    'hat',
    'shoe',
    'pear',
    'tomato',
    'carrot',
    'pepper',
    'cucumber',
    'egg',
    'bread',
    'milk',
    'juice',
    'cereal',
    'soap',
    'candle',
    'lamp',
    'mouse',
    'keyboard',
    'laptop',
    'cable',
    'notebook',
    'paper',
    'golden',
    'transparent',
    'dark',
    'light',
    'top',
    'bottom',
    'middle',
    'above',
    'below',
    'under',
    'first',
    'second',
    'third',
    'last',
    'round',
    'square',
    'image',
    'picture',
    'mask',
    'output',
    'answer',
    'segmentation',
]


def _vocabulary() -> list[str]:
    """Return the words of the training split, and of all verbs and sentence frames, in a fixed order."""
    texts = [*MORE, *COLORS, *words.NUMBERS, *words.MATERIALS.values()]
    for wordings in (words.VERBS, words.FRAMES):
        texts += [*wordings.common, *wordings.unseen]
    texts += [*INTENTS, *(' '.join(forms) for synonyms in words.NOUNS.values() for forms in synonyms)]
    for table in (words.SIZES, words.RELATIONS, words.EXTREMES):
        for wordings in table.values():
            texts += wordings.common
    for intent in INTENTS.values():
        texts += [*intent.phrases, *intent.questions]
    return list(dict.fromkeys(word for text in texts for word in re.findall(r"[A-Za-z']+", text)))


def build_tokenizer() -> Tokenizer:
    """Return a byte-level BPE tokenizer with Qwen's pre-tokenisation; special tokens follow the vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), 'isolated'),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    # A word within a sentence is the most frequent form, so that its merges come first.
    corpus = [form for word in _vocabulary() for form in (*[f' {word}'] * 3, word, word, word.capitalize())]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def build_config(tokenizer: Tokenizer, side: int = SIDE) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the contents of config.json and sam3/config.json of the small model, which has 7.9 M parameters.

    Args:
        tokenizer: Its tokenizer.
        side: Side of the image that the trunk reads, px.
    """
    cells = side // STRIDE  # of the trunk's coarsest map along each axis: SAM3's tokens, and Qwen's patches
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL}
    width, heads, sam_width = 160, 5, 80
    config = {
        'architectures': ['InstructSAMForConditionalGeneration'],
        'model_type': 'qwen3_vl',
        'tie_word_embeddings': True,
        'image_token_id': ids['<|image_pad|>'],
        'video_token_id': ids['<|video_pad|>'],
        'vision_start_token_id': ids['<|vision_start|>'],
        'vision_end_token_id': ids['<|vision_end|>'],
        'ref_start_token_index': ids['<|object_ref_start|>'],
        'ref_end_token_index': ids['<|object_ref_end|>'],
        'region_token_index': ids['<REGION>'],
        'seg_token_index': ids['[SEG]'],
        'seg_start_token_index': ids['<|mask_start|>'],
        'seg_end_token_index': ids['<|mask_end|>'],
        'max_seg_nums': 10,
        'seg_encoder': 'sam3',
        'seg_decoder': 'sam3',
        'mask_decoder_model': 'sam3',
        'mm_mask_decoder': 'sam3',
        'out_dim': sam_width,
        'bce_loss_weight': 2.0,
        'dice_loss_weight': 0.5,
        'cls_loss_weight': 1.0,
        'loss_sample_points': False,
        'trunk': {'kind': TRUNKS[0], 'image_size': side},
        'slot_references': True,
        'slot_scores': True,
        'phrase_scores': True,
        'text_config': {
            'model_type': 'qwen3_vl_text',
            'vocab_size': tokenizer.get_vocab_size(),
            'hidden_size': width,
            'intermediate_size': 448,
            'num_hidden_layers': 7,  # a relation takes several: its anchor, the candidates, their comparison
            'num_attention_heads': heads,
            'num_key_value_heads': heads,
            'head_dim': width // heads,
            'hidden_act': 'silu',
            'max_position_embeddings': 4096,
            'rms_norm_eps': 1e-6,
            'rope_theta': 5000000.0,
            'rope_scaling': {'rope_type': 'default', 'mrope_section': [6, 5, 5], 'mrope_interleaved': True},
            'attention_bias': False,
            'bos_token_id': ids['<|endoftext|>'],
            'eos_token_id': ids['<|im_end|>'],
            'tie_word_embeddings': True,
        },
        'vision_config': {
            'model_type': 'qwen3_vl',
            'depth': 3,  # on top of the trunk
            'hidden_size': width,
            'hidden_act': 'gelu_pytorch_tanh',
            'intermediate_size': 400,
            'num_heads': heads,
            'in_channels': COARSE_CHANNELS,
            'patch_size': 1,
            'spatial_merge_size': 2,
            'temporal_patch_size': 1,
            'out_hidden_size': width,
            'num_position_embeddings': cells**2,
            'deepstack_visual_indexes': [1],
        },
    }
    layers = {
        'hidden_size': sam_width,
        'num_attention_heads': 5,
        'intermediate_size': 320,
        'dropout': 0.0,
        'hidden_act': 'relu',
    }
    detector = {
        'model_type': 'sam3',
        'vision_config': {
            'model_type': 'sam3_vision_model',
            'fpn_hidden_size': sam_width,
            'scale_factors': [4.0, 2.0, 1.0, 0.5],
            'backbone_feature_sizes': [[scale * cells, scale * cells] for scale in (4, 2, 1)],
            'backbone_config': {
                'model_type': 'sam3_vit_model',
                'hidden_size': 160,
                'intermediate_size': 480,
                'num_hidden_layers': 5,
                'num_attention_heads': 5,
                'image_size': cells,
                'patch_size': 1,
                'num_channels': COARSE_CHANNELS,
                'window_size': min(8, cells),
                'global_attn_indexes': [1, 3, 4],
                'pretrain_image_size': cells,  # positions are not tiled, because the position in the image matters
                'hidden_act': 'gelu',
            },
        },
        # The text encoder is never built, but the published layout has this section.
        'text_config': {'model_type': 'clip_text_model', 'hidden_size': 32, 'num_hidden_layers': 1},
        'geometry_encoder_config': {  # used by nothing, and therefore as small as possible
            'model_type': 'sam3_geometry_encoder',
            'num_layers': 1,
            'roi_size': 1,
            **layers,
            'intermediate_size': 1,
        },
        'detr_encoder_config': {'model_type': 'sam3_detr_encoder', 'num_layers': 2, **layers},
        'detr_decoder_config': {'model_type': 'sam3_detr_decoder', 'num_layers': 3, 'num_queries': 200, **layers},
        'mask_decoder_config': {
            'model_type': 'sam3_mask_decoder',
            'hidden_size': sam_width,
            'num_upsampling_stages': 2,
            'num_attention_heads': 5,
            'dropout': 0.0,
        },
    }
    return config, {'model_type': 'sam3_video', 'detector_config': detector}


def write_folder(folder: str | Path, side: int = SIDE) -> None:
    """Write the model folder, without weights, for images of `side` px."""
    folder = Path(folder)
    (folder / 'sam3').mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    config, sam3 = build_config(tokenizer, side)
    end, pad = '<|im_end|>', '<|endoftext|>'
    half = [0.5, 0.5, 0.5]
    contents = {
        'config.json': config,
        'sam3/config.json': sam3,
        'sam3/preprocessor_config.json': {
            'size': {'height': side, 'width': side},
            'image_mean': half,
            'image_std': half,
        },
        'generation_config.json': {
            'do_sample': False,
            'eos_token_id': [tokenizer.token_to_id(end), tokenizer.token_to_id(pad)],
            'pad_token_id': tokenizer.token_to_id(pad),
        },
        'tokenizer_config.json': {
            'tokenizer_class': 'Qwen2Tokenizer',
            'eos_token': end,
            'pad_token': pad,
            'add_prefix_space': False,
            'clean_up_tokenization_spaces': False,
            'model_max_length': 4096,
        },
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
    (folder / 'chat_template.jinja').write_text(CHAT_TEMPLATE, encoding='utf-8')
    tokenizer.save(str(folder / 'tokenizer.json'))


def write_weights(folder: str | Path, trunk: Mapping[str, torch.Tensor], seed: int = 0) -> None:
    """Write the weights of a folder of `write_folder`: those of the trunk, and random ones for the rest."""
    model = InstructSAMModel(ModelConfig.from_folder(folder))
    initialise(model, seed)
    cast(Any, model.model.trunk).load_state_dict(trunk)
    write_tensors(Path(folder) / SINGLE, model.state_dict())


def main(argv: Sequence[str] | None = None) -> None:
    """Write the folder that the arguments name. Raises InstructSAMError."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('out', help='the folder to write')
    parser.add_argument('--side', type=int, default=SIDE, help='side of the image in px (default: %(default)s)')
    parser.add_argument('--random-trunk', action='store_true', help='draw the trunk, too, as tests do')
    args = parser.parse_args(argv)
    if args.random_trunk:
        torch.manual_seed(0)
        pretrained = Trunk().state_dict()
    else:
        pretrained = trunk_weights(read_lite0())
    with new_folder(args.out) as part:
        write_folder(part, args.side)
        write_weights(part, pretrained)


if __name__ == '__main__':
    main()
