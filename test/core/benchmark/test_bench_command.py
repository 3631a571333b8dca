"""`instructsam bench` on a tiny model."""

import json

import pytest
import torch

from instructsam.core import cli
from instructsam.core.benchmark import machine
from instructsam.core.benchmark.random_weights import builtin_tokens, published_config, random_engine
from instructsam.core.model.config import ModelConfig


@pytest.fixture(autouse=True)
def small_machine(monkeypatch):
    monkeypatch.setattr(machine, 'PRODUCTS', {'cpu': ((8, 8, 8), (64, 64, 64))})
    monkeypatch.setattr(machine, 'READ_BYTES', 1 << 12)


def test_the_table_and_the_json(checkpoint, tmp_path, capsys):
    options = ['--device', 'cpu', '--dtype', 'float32', '--size', '64', '48', '--seconds', '0.001']
    assert cli.main(['bench', '--model', str(checkpoint), *options, '--json', str(tmp_path / 'figures.json')]) == 0
    printed = capsys.readouterr().out
    document = json.loads((tmp_path / 'figures.json').read_text())
    assert document['settings'] | {'model': '', 'parameters': 0} == {
        'model': '',
        'revision': '',
        'parameters': 0,
        'device': 'cpu',
        'dtype': 'float32',
        'compile': 'off',
        'mode': 'consistent',
        'size': [64, 48],
    }
    assert document['rounds'] >= 3
    for stage in document['stages']:
        assert stage['name'] in printed
        assert 0 < stage['ms_min'] <= stage['ms'] <= stage['ms_max']
        assert (stage['gflop'] > 0) == (stage['name'] not in ('image input', 'masks'))
    assert 'tokens/s' in printed
    assert str(document['machine']['torch']) in printed


def test_random_weights_give_the_same_answer_each_time(checkpoint):
    config = ModelConfig.from_folder(checkpoint)
    raw = config.raw | builtin_tokens()
    raw['text_config'] = raw['text_config'] | {'vocab_size': 2048}
    config = ModelConfig.from_dict(raw, config.sam3)
    image = torch.zeros(64, 64, 3, dtype=torch.uint8)
    scores = []
    for _ in range(2):
        engine = random_engine(config, torch.device('cpu'), torch.float32)
        answer = engine.answer_for(['red mug'])
        result = engine.segment(engine.encode(image), 'mugs', answer=answer, score_threshold=0)
        scores.append([instance.score for instance in result.instances])
    assert scores[0] == scores[1]


def test_the_published_configuration_takes_the_built_in_tokens():
    config = published_config(builtin_tokens())
    assert config.text.num_hidden_layers == 28
    assert config.tokens.phrase_end == builtin_tokens()['ref_end_token_index']
