"""`instructsam models`: the list, downloads and descriptions, without a network."""

import json
import shutil

import pytest

from instructsam.core import cli
from instructsam.core.hub import cache
from instructsam.core.hub.describe import describe

COMMIT = '0123456789abcdef0123456789abcdef01234567'
SNAPSHOT_DOWNLOAD = 'instructsam.core.model.checkpoint.snapshot_download'


@pytest.fixture
def hub(tmp_path, checkpoint, monkeypatch):
    """A cache of the hub with one InstructSAM model, one without weights and one of another architecture."""
    for name, commit in (('complete', COMMIT), ('partial', 'f' * 40), ('other', 'e' * 40)):
        repository = tmp_path / f'models--owner--{name}'
        snapshot = repository / 'snapshots' / commit
        shutil.copytree(checkpoint, snapshot)
        (repository / 'refs').mkdir()
        (repository / 'refs/main').write_text(commit)
    for weights in (tmp_path / 'models--owner--partial').rglob('*.safetensors'):
        weights.unlink()
    (tmp_path / f'models--owner--other/snapshots/{"e" * 40}/config.json').write_text('{"model_type": "bert"}')
    (tmp_path / f'models--owner--complete/snapshots/{COMMIT}/README.md').write_text(
        '---\nlicense: apache-2.0\n---\n# A card\n\nFirst\nlines.\n\n## More\n'
    )
    scan = cache.scan_cache_dir
    monkeypatch.setattr(cache, 'scan_cache_dir', lambda folder=None: scan(folder or tmp_path))
    return tmp_path


def test_the_list(hub, capsys):
    assert cli.main(['models', 'list']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith('tabletop: built-in model')
    assert lines[1].startswith('owner/complete 0123456789ab (main): ')
    assert lines[2].endswith('weights are missing: fetch it again')
    assert len(lines) == 3


def test_the_list_as_json(hub, capsys):
    assert cli.main(['models', 'list', '--json', '-']) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document['built_in']) == ['tabletop']
    assert [(model['name'], model['complete']) for model in document['cached']] == [
        ('owner/complete', True),
        ('owner/partial', False),
    ]


def test_a_model_without_all_shards_is_incomplete(hub):
    snapshot = hub / f'models--owner--complete/snapshots/{COMMIT}'
    (snapshot / 'model.safetensors').rename(snapshot / 'model-1.safetensors')
    index = {'weight_map': {'a': 'model-1.safetensors', 'b': 'model-2.safetensors'}}
    (snapshot / 'model.safetensors.index.json').write_text(json.dumps(index))
    assert not cache.cached_models()[0].is_complete
    (snapshot / 'model-2.safetensors').touch()
    assert cache.cached_models()[0].is_complete


@pytest.mark.parametrize('arguments', [['list'], ['describe', 'tabletop']])
def test_json_in_a_missing_folder_is_an_error_of_usage(hub, tmp_path, capsys, arguments):
    assert cli.main(['models', *arguments, '--json', str(tmp_path / 'absent/models.json')]) == 2
    assert 'there is no folder' in capsys.readouterr().err


def test_an_empty_cache(tmp_path, monkeypatch, capsys):
    scan = cache.scan_cache_dir
    monkeypatch.setattr(cache, 'scan_cache_dir', lambda folder=None: scan(tmp_path / 'absent'))
    assert cli.main(['models', 'list']) == 0
    assert 'instructsam models fetch' in capsys.readouterr().out


def test_describe_a_cached_model(hub):
    facts = describe(hub / f'models--owner--complete/snapshots/{COMMIT}')
    assert (facts.commit, facts.licence, facts.card) == (COMMIT, 'apache-2.0', ('# A card', 'First lines.'))
    assert facts.parameters > 10_000
    assert facts.dtypes == ('F32',)


def test_describe_the_built_in_model(capsys):
    assert cli.main(['models', 'describe', 'tabletop']) == 0
    out = capsys.readouterr().out
    for expected in ('7.9 M in F16, 15.9 MB', '7 layers of width 160', '384 x 384 px, 10 queries', 'warning: built-in'):
        assert expected in out


def test_fetch(hub, capsys, monkeypatch):
    asked = []

    def snapshot_download(name, revision, allow_patterns):
        asked.append((name, revision, 'README.md' in allow_patterns))
        return str(hub / f'models--owner--complete/snapshots/{COMMIT}')

    monkeypatch.setattr(SNAPSHOT_DOWNLOAD, snapshot_download)
    assert cli.main(['models', 'fetch', 'owner/complete', '--revision', 'v1']) == 0
    assert asked == [('owner/complete', 'v1', True)]
    assert capsys.readouterr().out.strip().endswith(COMMIT)


def test_fetching_a_folder_is_refused(checkpoint, capsys):
    assert cli.main(['models', 'fetch', str(checkpoint)]) == 2
    assert f'{checkpoint} is a folder: there is nothing to download' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'offline', 'expected'),
    [
        (['fetch', 'owner/name'], False, 'the hub cannot be reached'),
        (['fetch', 'owner/name'], True, 'HF_HUB_OFFLINE is set'),
        (['fetch', 'tabletop'], False, 'tabletop is built in'),
        (['describe', 'owner/name'], False, 'instructsam models fetch owner/name'),
        (['describe', 'owner/name', '--revision', 'v2'], False, 'fetch owner/name --revision v2'),
        (['describe', 'nowhere'], False, 'there is no model folder nowhere'),
    ],
)
def test_errors(capsys, monkeypatch, arguments, offline, expected):
    def snapshot_download(*args, **options):
        raise ConnectionError('no route to host')

    monkeypatch.setattr(SNAPSHOT_DOWNLOAD, snapshot_download)
    monkeypatch.setattr('instructsam.core.model.checkpoint.HF_HUB_OFFLINE', offline)
    assert cli.main(['models', *arguments]) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert err.count('\n') == 1
