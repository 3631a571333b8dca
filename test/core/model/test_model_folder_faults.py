"""Model folders made to harm: each is loaded or refused as ModelError; none runs code, hangs or fills the memory."""

import builtins
import json
import os
import shutil
import tracemalloc

import pytest
import torch
from safetensors.torch import load_file, save_file

from instructsam.core import InstructSAM, ModelError
from instructsam.core.model.checkpoint import save_tensors
from instructsam.core.model.config import ModelConfig
from instructsam.core.model.config_check import check_config

DETECTOR, BACKBONE = ('detector_config',), ('detector_config', 'vision_config', 'backbone_config')


@pytest.fixture
def copy(tmp_path, reference):
    """A copy of a tiny model in the published form that a test may modify."""
    return shutil.copytree(reference / 'checkpoint', tmp_path / 'model')


def load(folder):
    return InstructSAM.from_pretrained(folder, device='cpu')


def edit(folder, name, path, value):
    """Set the entry at `path` of a JSON file."""
    content = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (folder / name).write_text(json.dumps(content))


# Code


@pytest.mark.parametrize(
    ('file', 'path'),
    [
        ('config.json', ('auto_map',)),
        ('config.json', ('text_config', 'auto_map')),
        ('config.json', ('vision_config', 'auto_map')),
        ('sam3/config.json', ('auto_map',)),
        ('sam3/config.json', (*DETECTOR, 'auto_map')),
        ('sam3/config.json', (*BACKBONE, 'auto_map')),
        ('tokenizer_config.json', ('auto_map',)),
        ('preprocessor_config.json', ('auto_map',)),
        ('processor_config.json', ('auto_map',)),
        ('generation_config.json', ('auto_map',)),
        ('generation_config.json', ('custom_generate',)),
    ],
    ids=str,
)
def test_no_file_of_a_model_folder_is_imported(copy, file, path, monkeypatch):
    evil = f'open({str(copy / "imported")!r}, "w")\nclass Evil:\n    pass\n'
    for name in ('evil.py', 'modeling_evil.py', 'sitecustomize.py', 'jinja2.py', 'custom_generate/generate.py'):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text(evil)
    classes = ('AutoConfig', 'AutoModel', 'AutoProcessor', 'AutoImageProcessor', 'AutoModelForCausalLM')
    classes = dict.fromkeys(classes, 'evil.Evil') | {'AutoTokenizer': ['evil.Evil', 'evil.Evil']}
    edit(copy, file, path, classes if path[-1] == 'auto_map' else str(copy))
    edit(copy, 'tokenizer_config.json', ('tokenizer_class',), 'Evil' if 'tokenizer' in file else 'Qwen2Tokenizer')
    monkeypatch.chdir(copy)
    monkeypatch.setattr(builtins, 'input', lambda *_: pytest.fail('a question on the terminal'))
    try:
        load(copy)
    except ModelError as error:
        assert 'tokenizer' in str(error)  # noqa: PT017  # either outcome is right
    assert not (copy / 'imported').exists()


# Special files


@pytest.mark.parametrize(
    'name',
    [
        'config.json',
        'sam3/config.json',
        'model.safetensors',
        'model.safetensors.index.json',
        'tokenizer.json',
        'tokenizer_config.json',
        'special_tokens_map.json',
        'added_tokens.json',
        'chat_template.jinja',
        'preprocessor_config.json',
        'generation_config.json',
    ],
)
def test_a_fifo_is_never_waited_for(copy, name):
    (copy / name).unlink(missing_ok=True)
    os.mkfifo(copy / name)
    with pytest.raises(ModelError):
        load(copy)


def test_files_of_absurd_size(copy):
    for name in ('config.json', 'tokenizer.json', 'special_tokens_map.json'):
        content = (copy / name).read_bytes() if (copy / name).exists() else b'{}'
        with open(copy / name, 'wb') as file:
            file.truncate(10**11)
        with pytest.raises(ModelError, match=f'{name} cannot be read: it has 100000000000 bytes'):
            load(copy)
        (copy / name).write_bytes(content)


def test_files_that_are_not_read_do_not_count(copy, tmp_path):
    for name in ('notes.json', 'README.txt', 'other.jinja', 'sam3/notes.json'):
        (copy / name).touch()
    with open(copy / 'log.json', 'wb') as file:
        file.truncate(100 << 20)
    os.mkfifo(copy / 'pipe.json')
    engine = load(copy)
    save_tensors(engine.model.config, engine.model.state_dict(), tmp_path / 'saved', copy)
    assert load(tmp_path / 'saved')
    assert not (tmp_path / 'saved' / 'log.json').exists()


def test_a_name_that_is_too_long(copy, tmp_path):
    edit(copy, 'config.json', ('mask_decoder_model',), 300 * 'x')
    with pytest.raises(ModelError):  # SAM3's defaults do not fit
        load(copy)
    for name in (f'owner/{300 * "x"}', tmp_path / (300 * 'x')):
        with pytest.raises(ModelError, match=r'there is no model folder|is neither a folder nor a hub id'):
            load(name)


# Configurations


@pytest.mark.parametrize(
    ('file', 'path', 'value', 'reason'),
    [
        (
            'config.json',
            ('text_config', 'hidden_size'),
            10**9,
            'hidden_size is 1000000000 in the.* {was} in the tensors',
        ),
        (
            'config.json',
            ('text_config', 'num_hidden_layers'),
            10**6,
            'num_hidden_layers is 1000000 .* {was} in the tensors',
        ),
        ('config.json', ('text_config', 'head_dim'), 10**8, 'head_dim is 100000000 .* {was} in the tensors'),
        ('config.json', ('text_config', 'vocab_size'), 10**10, 'vocab_size is 10000000000 .* {was} in the tensors'),
        (
            'config.json',
            ('text_config', 'num_attention_heads'),
            7,
            'num_attention_heads x head_dim is {seven_heads} .* {heads} in the',
        ),
        ('config.json', ('text_config', 'hidden_act'), 'evil', "hidden_act is 'evil'"),
        ('config.json', ('text_config', 'rms_norm_eps'), -1.0, 'rms_norm_eps is -1.0'),
        (
            'config.json',
            ('text_config', 'rope_scaling', 'mrope_section'),
            [1, 1],
            'mrope_section is .1, 1., expected 3',
        ),
        ('config.json', ('vision_config', 'depth'), 10**6, 'vision_config: depth is 1000000 .* {was} in the tensors'),
        ('config.json', ('vision_config', 'deepstack_visual_indexes'), [1, 9], 'are not different layers'),
        ('config.json', ('vision_config', 'num_heads'), 0, 'num_heads is 0, expected a divisor'),
        ('config.json', ('vision_config', 'num_heads'), 3, 'num_heads is 3, expected a divisor of the width'),
        ('config.json', ('vision_config', 'num_heads'), 16, 'num_heads is 16, expected heads of a multiple of 4'),
        ('config.json', ('max_seg_nums',), 10**9, 'max_seg_nums = .1000000000., expected an integer from 1'),
        ('config.json', ('max_seg_nums',), 'many', "max_seg_nums = 'many', expected an integer"),
        ('config.json', ('out_dim',), None, 'out_dim = .None'),
        ('config.json', ('seg_token_index',), [1], r"seg_token_index = '\[1\]', expected an integer"),
        ('config.json', ('image_token_id',), -1, 'image_token_id = .-1'),
        ('config.json', ('mask_decoder_model',), 3, 'mask_decoder_model = 3'),
        ('config.json', ('text_config',), 'x', 'does not describe a Qwen3-VL model'),
        ('config.json', ('text_config', 'rope_theta'), float('inf'), 'Infinity is not a finite number'),
        ('config.json', ('text_config', 'initializer_range'), 10**30, 'has more than 64 bits'),
        (
            'sam3/config.json',
            (*DETECTOR, 'detr_decoder_config', 'num_layers'),
            20000,
            'num_layers is 20000 .* {was} in the',
        ),
        ('sam3/config.json', (*BACKBONE, 'image_size'), 10**9, 'image_size is 1000000000, expected a multiple'),
        ('sam3/config.json', (*BACKBONE, 'window_size'), 10**9, 'window_size is 1000000000, expected 1 to 16'),
        ('sam3/config.json', (*BACKBONE, 'num_attention_heads'), 7, 'num_attention_heads is 7, expected a divisor'),
        ('sam3/config.json', (*BACKBONE, 'model_type'), 'llama', 'has a LlamaConfig as backbone_config'),
        ('sam3/config.json', DETECTOR, [], 'does not describe a SAM3 model'),
        (
            'preprocessor_config.json',
            ('patch_size',),
            0,
            'patch_size is 0 in preprocessor_config.json, 16 in config.json',
        ),
        (
            'preprocessor_config.json',
            ('size', 'longest_edge'),
            10**12,
            'resizes to {shortest} to 1000000000000 px',
        ),
        ('preprocessor_config.json', ('size',), [1], 'not an image preprocessor'),
        ('generation_config.json', ('eos_token_id',), [[1]], r'eos_token_id \[1\], expected ids from 0 to {last}'),
        (
            'generation_config.json',
            ('eos_token_id',),
            10**9,
            'eos_token_id 1000000000, expected ids from 0 to {last}',
        ),
    ],
    ids=str,
)
def test_configurations_are_checked_before_anything_is_built(copy, file, path, value, reason):
    reason = reason.format(**numbers_of(copy, file, path))
    edit(copy, file, path, value)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=f'(?s){reason}'):
            load(copy)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


def numbers_of(folder, file, path):
    """Return the numbers of an intact folder that messages about it name; was: the value at `path`."""
    text = json.loads((folder / 'config.json').read_text())['text_config']
    size = json.loads((folder / 'preprocessor_config.json').read_text())['size']
    was = json.loads((folder / file).read_text())
    for key in path:
        was = was[key] if isinstance(was, list) or key in was else None
    return {
        'was': was,
        'heads': text['num_attention_heads'] * text['head_dim'],
        'seven_heads': 7 * text['head_dim'],
        'last': text['vocab_size'] - 1,
        'shortest': size['shortest_edge'],
    }


def test_any_wrong_value_is_a_model_error(copy):
    """Every entry of the configurations, replaced by values of every kind: it is taken, or is refused."""
    tensors = load_file(copy / 'model.safetensors')
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    refused = taken = 0
    for file in ('config.json', 'sam3/config.json'):
        original = (copy / file).read_text()
        for path in sorted(entries(json.loads(original)), key=str)[::3]:
            for value in (None, 2**62, 'x', {}):
                (copy / file).write_text(original)
                edit(copy, file, path, value)
                try:
                    check_config(ModelConfig.from_folder(copy), shapes)
                    taken += 1
                except ModelError:
                    refused += 1
        (copy / file).write_text(original)
    assert refused > 60
    assert taken > 20


def entries(value, path=()):
    """Yield the path of every entry of a JSON object, itself excluded."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from entries(child, (*path, key))


@pytest.mark.parametrize('content', ['[1]', '"x"', '', '{"a": ' * 100_000, '\udcff', '{"a": 1}'])
@pytest.mark.parametrize(
    'name', ['config.json', 'sam3/config.json', 'preprocessor_config.json', 'generation_config.json', 'tokenizer.json']
)
def test_files_that_hold_something_else(copy, name, content):
    (copy / name).write_bytes(content.encode(errors='surrogateescape'))
    if (name, content) == ('generation_config.json', '{"a": 1}'):
        assert load(copy)
        return
    with pytest.raises(ModelError) as caught:
        load(copy)
    assert len(str(caught.value)) < 3000


def test_two_tokens_with_one_id(copy):
    content = json.loads((copy / 'tokenizer.json').read_text())
    first, second = (''.join(pair) for pair in content['model']['merges'][:2])
    content['model']['vocab'][first] = content['model']['vocab'][second]
    (copy / 'tokenizer.json').write_text(json.dumps(content))
    with pytest.raises(ModelError, match='vocabulary of the tokenizer contradicts itself: Token `'):
        load(copy)


# Tensors


def with_shards(folder, weight_map):
    tensors = load_file(folder / 'model.safetensors')
    (folder / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': weight_map}))
    return tensors


@pytest.mark.parametrize(
    ('weight_map', 'reason'),
    [
        ({'a': '../outside.safetensors'}, 'expected names of files beside it'),
        ({'a': '/etc/passwd'}, 'expected names of files beside it'),
        ({'a': 5}, 'expected names of files beside it'),
        ({'a': ['x']}, 'cannot be read'),
        (['a'], 'cannot be read'),
        ({}, 'missing'),
        (None, 'cannot be read'),
    ],
    ids=str,
)
def test_indices_of_shards(copy, weight_map, reason):
    with_shards(copy, weight_map)
    with pytest.raises(ModelError, match=f'(?s){reason}'):
        load(copy)


def test_a_tensor_in_two_shards(copy):
    tensors = with_shards(copy, {'a': 'model.safetensors', 'b': 'more.safetensors'})
    save_file({'model.mask_queries': tensors['model.mask_queries']}, copy / 'more.safetensors')
    with pytest.raises(ModelError, match=r'model\.mask_queries, which another shard holds, too'):
        load(copy)


@pytest.mark.parametrize('dtype', [torch.int64, torch.bool, torch.float64, torch.float8_e4m3fn])
def test_tensors_of_another_type(copy, dtype):
    tensors = load_file(copy / 'model.safetensors')
    tensors['model.mask_queries'] = tensors['model.mask_queries'].to(dtype)
    save_file(tensors, copy / 'model.safetensors')
    with pytest.raises(ModelError, match=r'model\.mask_queries is .*, expected one of F32, BF16, F16'):
        load(copy)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
def test_weights_that_are_not_finite(copy, value):
    tensors = load_file(copy / 'model.safetensors')
    tensors['model.mask_queries'][3, 2] = value
    save_file(tensors, copy / 'model.safetensors')
    with pytest.raises(ModelError, match=r'model\.mask_queries has values that are not finite \(in float32\)'):
        load(copy)


def test_weights_beyond_the_precision(copy):
    tensors = load_file(copy / 'model.safetensors')
    tensors['model.mask_queries'] = tensors['model.mask_queries'].float()
    tensors['model.mask_queries'][3, 2] = 1e6
    save_file(tensors, copy / 'model.safetensors')
    assert load(copy)
    with pytest.raises(ModelError, match=r'mask_queries has values that are not finite \(in float16\).*float32'):
        InstructSAM.from_pretrained(copy, device='cpu', dtype='float16')


def test_weights_that_are_not_finite_are_not_written(engine, tmp_path):
    tensors = {name: tensor.clone() for name, tensor in engine.model.state_dict().items()}
    tensors['model.mask_queries'][0, 0] = float('nan')
    with pytest.raises(ModelError, match=r'model\.mask_queries, which was to be written .*not finite'):
        save_tensors(engine.model.config, tensors, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
