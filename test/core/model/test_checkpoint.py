"""Loading and saving: exact round trips, single or sharded files, clear errors for everything else."""

import errno
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from instructsam.core import InstructSAM, ModelError
from instructsam.core.errors import StorageError
from instructsam.core.model import checkpoint as checkpoint_module
from instructsam.core.model.checkpoint import load, resolve, save
from instructsam.core.model.config import ModelConfig
from instructsam.core.model.instructsam import InstructSAMModel


@pytest.fixture
def copy(checkpoint, tmp_path):
    """A copy of the tiny checkpoint that a test may modify."""
    return shutil.copytree(checkpoint, tmp_path / 'model')


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def edit_config(folder, change, name='config.json'):
    config = json.loads((folder / name).read_text())
    change(config)
    (folder / name).write_text(json.dumps(config))


def shard(folder, parts=3):
    """Rewrite model.safetensors as shards with an index, as transformers does."""
    tensors = load_file(folder / 'model.safetensors')
    (folder / 'model.safetensors').unlink()
    weight_map = {}
    for part in range(parts):
        names = sorted(tensors)[part::parts]
        file = f'model-{part + 1:05}-of-{parts:05}.safetensors'
        save_file({name: tensors[name] for name in names}, folder / file)
        weight_map.update(dict.fromkeys(names, file))
    (folder / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': weight_map}))


def test_weights_are_those_of_the_file(checkpoint):
    model = load(checkpoint, 'cpu', None)
    stored = load_file(checkpoint / 'model.safetensors')
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))


def test_two_threads_load_models(checkpoint, monkeypatch):
    """Afterwards, new modules have parameters with memory, as before."""
    monkeypatch.setattr(torch.nn.Module, 'register_parameter', torch.nn.Module.register_parameter)  # put back if not
    first, second = (threading.Thread(target=load, args=(checkpoint, 'cpu', None)) for _ in range(2))
    first_builds, both_build = threading.Event(), threading.Event()

    def build(config):
        if threading.current_thread() is first:
            first_builds.set()
            both_build.wait(1)
        else:
            both_build.set()
            first.join(60)
        return InstructSAMModel(config)

    monkeypatch.setattr(checkpoint_module, 'InstructSAMModel', build)
    first.start()
    assert first_builds.wait(60)
    second.start()
    first.join()
    second.join()
    assert not torch.nn.Linear(1, 1).weight.is_meta


def test_saved_folder_loads_back_bit_for_bit(engine, image, tmp_path):
    engine.save_pretrained(tmp_path)
    again = InstructSAM.from_pretrained(tmp_path, device='cpu', dtype='float32')
    assert same(engine.model, again.model)
    results = [
        e.segment(e.encode(image), 'cup', answer=e.answer_for(['red cup']), score_threshold=0).to_json()['instances']
        for e in (engine, again)
    ]
    assert results[0] == results[1] != []
    assert not list(tmp_path.rglob('*.part'))


def test_saved_folder_has_the_published_layout(engine, checkpoint, tmp_path):
    engine.save_pretrained(tmp_path)
    published = {path.relative_to(checkpoint) for path in checkpoint.rglob('*') if path.is_file()}
    assert published <= {path.relative_to(tmp_path) for path in tmp_path.rglob('*') if path.is_file()}
    stored, written = (load_file(folder / 'model.safetensors') for folder in (checkpoint, tmp_path))
    assert stored.keys() == written.keys()
    raw = json.loads((tmp_path / 'config.json').read_text())
    assert (tmp_path / raw['mask_decoder_model'] / 'config.json').is_file()
    original = json.loads((checkpoint / 'config.json').read_text())
    assert {key: raw[key] for key in original if 'mask_decoder' not in key} == {
        key: value for key, value in original.items() if 'mask_decoder' not in key
    }


def test_saving_over_itself_and_in_half_precision(copy):
    engine = InstructSAM.from_pretrained(copy, device='cpu', dtype='bfloat16')
    engine.save_pretrained(copy)
    again = InstructSAM.from_pretrained(copy, device='cpu', dtype='bfloat16')
    assert same(engine.model, again.model)
    assert {str(t.dtype) for t in load_file(copy / 'model.safetensors').values()} == {'torch.bfloat16'}


def test_tables_stay_exact_in_half_precision(checkpoint):
    """Rotary frequencies are always float32, because rounding them would shift positions."""
    half, full = (load(checkpoint, 'cpu', dtype) for dtype in (torch.bfloat16, torch.float32))
    for (name, one), (_, other) in zip(half.named_buffers(), full.named_buffers(), strict=True):
        assert torch.equal(one, other), name


def test_sharded(copy, checkpoint):
    shard(copy)
    assert same(load(copy, 'cpu', None), load(checkpoint, 'cpu', None))


def test_a_save_replaces_shards(copy):
    (copy / 'other.safetensors').touch()
    shard(copy)
    model = load(copy, 'cpu', None)
    model.model.mask_queries += 1
    save(model, copy)
    assert same(load(copy, 'cpu', None), model)
    assert {path.name for path in copy.glob('*.safetensors*')} == {'model.safetensors', 'other.safetensors'}


@pytest.mark.parametrize('index', ['{', '{"weight_map": {"a": "../model.bin", "b": "config.json"}}'])
def test_a_save_removes_an_index_but_no_file_that_is_no_shard(copy, checkpoint, index):
    (copy / 'model.safetensors.index.json').write_text(index)
    (copy.parent / 'model.bin').touch()
    model = load(checkpoint, 'cpu', None)
    save(model, copy)
    assert same(load(copy, 'cpu', None), model)
    assert (copy.parent / 'model.bin').exists()


def test_an_index_that_names_the_single_file(copy):
    weight_map = dict.fromkeys(load_file(copy / 'model.safetensors'), 'model.safetensors')
    (copy / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': weight_map}))
    model = load(copy, 'cpu', None)
    save(model, copy)
    assert same(load(copy, 'cpu', None), model)


def test_a_save_beside_lora_matrices_is_refused(engine, copy):
    (copy / 'adapter_model.safetensors').touch()
    before = contents(copy)
    with pytest.raises(ModelError, match='holds LoRA matrices'):
        save(engine.model, copy)
    assert contents(copy) == before


def test_sam3_config_that_does_not_resolve_is_sam3s_default(copy):
    """The published file needs this: its mask_decoder_model is a path on its authors' disk."""
    shutil.rmtree(copy / 'sam3')
    edit_config(copy, lambda config: config.update(mask_decoder_model='checkpoints/sam3', out_dim=256))
    config = ModelConfig.from_folder(copy)
    assert config.sam3.vision_config.backbone_config.image_size == 1008
    assert config.sam3.detr_decoder_config.num_queries == config.num_queries


def test_half_written_saves_leave_the_old_file(engine, copy, monkeypatch):
    before = (copy / 'model.safetensors').read_bytes()

    def full_disk(tensors, path, metadata):
        path.write_bytes(b'half')
        raise OSError('No space left on device')

    monkeypatch.setattr('instructsam.core.model.checkpoint.save_file', full_disk)
    with pytest.raises(StorageError, match=r'model\.safetensors: No space left on device'):
        save(engine.model, copy)
    assert (copy / 'model.safetensors').read_bytes() == before


def test_side_files_appear_complete_or_not_at_all(engine, copy, checkpoint, monkeypatch):
    before, write_bytes = contents(copy), Path.write_bytes

    def full_disk(path, content):
        write_bytes(path, content[:9])
        raise OSError(errno.ENOSPC, 'No space left on device', str(path))

    monkeypatch.setattr(Path, 'write_bytes', full_disk)
    with pytest.raises(StorageError, match='No space left on device'):
        save(engine.model, copy, checkpoint)
    assert contents(copy) == before


def test_a_save_into_a_file_is_refused(engine, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(StorageError, match='Not a directory'):
        save(engine.model, tmp_path / 'file')
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'sam3').touch()
    with pytest.raises(ModelError, match='sam3 is a file, expected a folder'):
        save(engine.model, tmp_path / 'out')


def drop(name):
    return lambda folder: (folder / name).unlink()


def rewrite(change):
    def apply(folder):
        tensors = load_file(folder / 'model.safetensors')
        change(tensors)
        save_file(tensors, folder / 'model.safetensors')

    return apply


def truncate(folder):
    file = folder / 'model.safetensors'
    file.write_bytes(file.read_bytes()[:-1000])


def only_a_pickle(folder):
    (folder / 'model.safetensors').unlink()
    torch.save({}, folder / 'pytorch_model.bin')


def another_architecture(folder):
    (folder / 'config.json').write_text(json.dumps({'model_type': 'llama', 'architectures': ['LlamaForCausalLM']}))


def lose_a_shard(folder):
    shard(folder)
    (folder / 'model-00002-of-00003.safetensors').unlink()


BROKEN = {
    'no weights': (drop('model.safetensors'), 'holds no weights: model.safetensors'),
    'no config': (drop('config.json'), 'no config.json'),
    'no tokenizer': (drop('tokenizer.json'), 'tokenizer'),
    'no template': (drop('chat_template.jinja'), 'chat template'),
    'no preprocessor': (drop('preprocessor_config.json'), 'preprocessor_config.json'),
    'truncated': (truncate, 'not a complete safetensors file'),
    'empty file': (lambda folder: (folder / 'model.safetensors').write_bytes(b''), 'the file is empty'),
    'pickle only': (only_a_pickle, 'pickles only'),
    'another architecture': (another_architecture, 'LlamaForCausalLM.*max_seg_nums'),
    'broken json': (lambda folder: (folder / 'config.json').write_text('{'), 'cannot be read'),
    'json without an object': (lambda folder: (folder / 'config.json').write_text('[]'), 'JSON object'),
    'missing tensor': (rewrite(lambda t: t.pop('model.mask_queries')), r'1 missing:\n  model.mask_queries'),
    'unexpected tensor': (rewrite(lambda t: t.update(extra=torch.zeros(2))), r'1 unexpected:\n  extra'),
    'shape': (
        rewrite(lambda t: t.update({'model.mask_queries': torch.zeros(3, 2)})),
        r'max_seg_nums is 10 in the configuration, 3 in the tensors',
    ),
    'lost shard': (lose_a_shard, 'model-00002-of-00003.safetensors'),
    'widths': (lambda f: edit_config(f, lambda c: c.update(out_dim=7)), 'out_dim is 7'),
    'token ids': (
        lambda f: edit_config(f, lambda c: c.update(seg_token_index=10**6)),
        'seg_token_index = .1000000., expected an integer from 0 to',
    ),
    'sam3 config': (lambda f: (f / 'sam3' / 'config.json').write_text('nonsense'), 'sam3.config.json cannot be read'),
}


@pytest.mark.parametrize('kind', BROKEN)
def test_broken_folders_are_refused_clearly(copy, kind):
    damage, says = BROKEN[kind]
    damage(copy)
    with pytest.raises(ModelError, match=rf'(?s){says}'):
        InstructSAM.from_pretrained(copy, device='cpu')


def test_a_pickle_is_never_read(copy):
    """Pickles are ignored even next to safetensors: unpickling the one below would abort the process."""
    (copy / 'pytorch_model.bin').write_bytes(b'\x80\x04cos\nabort\n(tR.')
    assert InstructSAM.from_pretrained(copy, device='cpu')


@pytest.mark.parametrize(
    ('name', 'says'),
    [
        ('no/such/folder/here', 'no model folder'),
        ('/nowhere', 'no model folder'),
        ('nothing', 'no model folder'),
        ('x' * 300, 'no model folder'),
        ('~nobody-of-this-name', 'no model folder'),
        ('owner/name-that-is-not-here', 'hub'),
        ('owner/bad name!', 'neither a folder nor a hub id'),
    ],
)
def test_names_that_lead_nowhere(monkeypatch, name, says):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    with pytest.raises(ModelError, match=says):
        InstructSAM.from_pretrained(name)


@pytest.mark.parametrize('target', ['/dev/zero', '/nowhere'])
def test_copying_a_small_file_that_is_none_ends(engine, copy, tmp_path, target):
    """A link to an endless device would be copied until the disk is full."""
    (copy / 'tokenizer_extra.json').symlink_to(target)
    with pytest.raises(ModelError, match=r'tokenizer_extra.json cannot be copied'):
        save(engine.model, tmp_path / 'out', copy)


def test_a_shard_of_a_name_that_no_file_can_have(copy):
    (copy / 'model.safetensors').unlink()
    (copy / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': {'a': 'x' * 300}}))
    with pytest.raises(ModelError, match='names shards that do not exist'):
        load(copy, 'cpu', None)


def test_a_file_is_not_a_folder(copy):
    with pytest.raises(ModelError, match='is a file'):
        InstructSAM.from_pretrained(copy / 'config.json')


IMPORT_FIRST = """
import importlib, multiprocessing, sys
import torch  # once, because it is slow and does not affect the outcome
forked = multiprocessing.get_context('fork')
first = [forked.Process(target=importlib.import_module, args=[f'instructsam.core.{name}']) for name in sys.argv[1:]]
for process in first: process.start()
for process in first: process.join()
sys.exit(str([process.exitcode for process in first]) if any(process.exitcode for process in first) else 0)
"""


def test_every_module_can_be_imported_first():
    """The search for torchvision in transformers must not depend on which module is imported first."""
    modules = ['model.grounding', 'model.checkpoint', 'engine', 'model.instructsam', 'cli']
    subprocess.run([sys.executable, '-c', IMPORT_FIRST, *modules], check=True)


@pytest.mark.parametrize(
    ('error', 'expected', 'reason'),
    [
        (OSError(errno.ENOSPC, 'No space left on device', '/cache/x'), StorageError, '/cache/x: No space left'),
        (RuntimeError('Data processing error: I/O error (os error 28)'), StorageError, 'No space left on device'),
        (PermissionError(errno.EACCES, 'Permission denied', HF_HUB_CACHE), StorageError, 'Permission denied'),
        (ConnectionRefusedError(errno.ECONNREFUSED, 'refused'), ModelError, 'the hub cannot be reached'),
        (FileNotFoundError(errno.ENOENT, 'No such file', '/etc/certificates'), ModelError, 'cannot be reached'),
        (LocalEntryNotFoundError('no snapshot folder'), ModelError, 'the hub cannot be reached'),
        (RuntimeError('proxy'), ModelError, 'the hub cannot be reached'),  # httpx has its own exceptions
    ],
    ids=str,
)
def test_a_download_that_fails(monkeypatch, error, expected, reason):
    def snapshot_download(*args, **kwargs):
        raise error

    monkeypatch.setattr('instructsam.core.model.checkpoint.snapshot_download', snapshot_download)
    with pytest.raises(expected, match=reason):
        resolve('owner/name')


def test_a_revision_of_a_hub_id(monkeypatch, copy, tmp_path):
    """The revision reaches the hub, and results name the commit that it led to."""
    commit = '0123456789abcdef0123456789abcdef01234567'
    snapshot = tmp_path / 'models--owner--name' / 'snapshots' / commit
    shutil.copytree(copy, snapshot)
    asked = []

    def snapshot_download(repository, revision, allow_patterns):
        asked.append((repository, revision))
        assert not any(pattern.endswith('.py') for pattern in allow_patterns)
        return str(snapshot)

    monkeypatch.setattr('instructsam.core.model.checkpoint.snapshot_download', snapshot_download)
    engine = InstructSAM.from_pretrained('owner/name', device='cpu', revision='v1.2')
    InstructSAM.from_pretrained('owner/name', device='cpu')
    assert asked == [('owner/name', 'v1.2'), ('owner/name', None)]
    assert engine.revision == commit
    assert InstructSAM.from_pretrained(copy, device='cpu').revision == ''


@pytest.mark.parametrize('name', ['tabletop', 'folder'])
def test_a_revision_of_a_folder_is_refused(copy, name):
    with pytest.raises(ModelError, match="the revision 'v1' is for a hub id"):
        InstructSAM.from_pretrained(copy if name == 'folder' else name, device='cpu', revision='v1')
