"""LoRA matrices: the layers that get them, the weights trained with them, and storing, refusing and merging them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from instructsam.core.cli import main
from instructsam.core.errors import ModelError
from instructsam.core.model import checkpoint
from instructsam.train.loop.checkpoints import read_stage, save_stage, write_final_model
from instructsam.train.loop.lora import add_lora, is_lora
from instructsam.train.loop.param_groups import parameter_groups
from instructsam.train.loop.recipe import LearningRates, Lora, RecipeError
from instructsam.train.losses.objective import Objective
from instructsam.train.stages.instruct import InstructTraining
from instructsam.train.weights.lora_limits import MAX_RANK
from instructsam.train.weights.merge import merge

IDS = torch.arange(12)[None]


@pytest.fixture
def model(mix):
    folder = Path(mix[1]['images']) / 'checkpoint'
    return checkpoint.load(folder, torch.device('cpu'), torch.float32).requires_grad_(True).eval()


def adapted(model, **keys):
    """Return the model with LoRA matrices that have an effect."""
    torch.manual_seed(0)
    add_lora(model, Lora(rank=3, **keys))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if 'lora_B' in name:
                parameter.normal_(std=0.3)
    return model


@torch.no_grad()
def answer(model):
    positions = torch.arange(IDS.shape[1]).expand(3, 1, -1)
    mask = torch.ones(1, 1, IDS.shape[1], IDS.shape[1], dtype=torch.bool).tril()
    return model.decode(model.embed(IDS), positions, mask)


@pytest.mark.parametrize('embeddings', [True, False])
def test_trained_parameters(model, embeddings):
    before = answer(model)
    add_lora(model, Lora(rank=3, embeddings=embeddings))
    assert torch.equal(answer(model), before)  # LoRA's B is zero before training
    assert type(model).__name__ == 'InstructSAMModel'
    learning_rates = LearningRates(language=1.0, vision=2.0, projector=3.0, decoder=4.0)
    groups = parameter_groups(InstructTraining(model, Objective(), 5), learning_rates, 0.0)
    names = {parameter: name for name, parameter in model.named_parameters()}
    language = {names[p] for group in groups if group['name'] == 'language' for p in group['params']}
    layers = model.config.qwen.text_config.num_hidden_layers
    assert sum(map(is_lora, language)) == len(list(filter(is_lora, names.values()))) == layers * 4 * 2
    assert {name for name in language if not is_lora(name)} == (
        {'model.language_model.embed_tokens.weight'} if embeddings else set()
    )
    assert {group['name'] for group in groups} == {'language', 'vision', 'projector', 'decoder'}
    assert not any(is_lora(name) for name in names.values() if not name.startswith('model.language_model.'))


def test_only_some_targets(model):
    add_lora(model, Lora(rank=2, targets=('q_proj',)))
    assert {name.split('.')[-4] for name in filter(is_lora, dict(model.named_parameters()))} == {'q_proj'}
    with pytest.raises(RecipeError, match=r'lora\.targets nothing: '):
        add_lora(model, Lora(targets=('nothing',)))


def kept(model, folder):
    training = InstructTraining(model, Objective(), 5)
    save_stage(training, training.state_dict(), folder, None)
    (folder / 'trainer_state.json').write_text('{}')
    return training


def test_kept_beside_the_plain_weights_and_merged(model, tmp_path, capsys):
    """Weights and matrices are stored in their published forms; unmerged they are refused, merged they answer alike."""
    plain = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    training = kept(adapted(model), tmp_path / 'run')
    expected = answer(model)
    stored = load_file(tmp_path / 'run' / 'model.safetensors')
    assert stored.keys() == plain.keys()
    assert all(torch.equal(stored[name], plain[name]) for name in plain)
    assert json.loads((tmp_path / 'run' / 'adapter_config.json').read_text())['peft_type'] == 'LORA'
    again = read_stage(training, tmp_path / 'run')
    assert all(torch.equal(tensor, again[name]) for name, tensor in training.state_dict().items())

    with pytest.raises(ModelError, match='unmerged LoRA matrices: run `instructsam train merge'):
        checkpoint.load(tmp_path / 'run', 'cpu', None)
    assert main(['train', 'merge', str(tmp_path / 'run'), str(tmp_path / 'merged')]) == 0
    names = {path.name for path in (tmp_path / 'merged').iterdir()}
    assert not names & {'adapter_config.json', 'adapter_model.safetensors', 'trainer_state.json'}
    merged = checkpoint.load(tmp_path / 'merged', 'cpu', None)
    torch.testing.assert_close(answer(merged), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(answer(merged), answer(checkpoint.load(tmp_path / 'run', 'cpu', None, base_only=True)))

    capsys.readouterr()
    for source, out, message in (
        ('run', 'merged', 'already exists'),
        ('merged', 'new', 'nothing to merge'),
        ('absent', 'new', 'nothing to merge'),
    ):
        assert main(['train', 'merge', str(tmp_path / source), str(tmp_path / out)]) == 2
        printed = capsys.readouterr().err
        assert message in printed
        assert len(printed.splitlines()) == 1
    assert main(['train', 'merge', str(tmp_path / 'run'), str(tmp_path / 'new')]) == 0


def test_whatever_a_recipe_can_ask_for_can_be_merged(model, tmp_path):
    kept(adapted(model, targets=('self_attn.q_proj', 'down_proj')), tmp_path / 'run')
    config = json.loads((tmp_path / 'run' / 'adapter_config.json').read_text())
    assert config['target_modules'] == r'model\.language_model\..*\.(self_attn\.q_proj|down_proj)'
    expected = answer(model)
    merge(tmp_path / 'run', tmp_path / 'out')
    torch.testing.assert_close(answer(checkpoint.load(tmp_path / 'out', 'cpu', None)), expected, rtol=1e-4, atol=1e-5)
    Lora(rank=MAX_RANK)
    with pytest.raises(RecipeError, match=f'from 1 to {MAX_RANK}'):
        Lora(rank=MAX_RANK + 1)


@pytest.mark.parametrize('name', ['lora_run', 'run'])
@pytest.mark.parametrize('merged', [True, False])
def test_the_recipe_decides_what_is_merged(model, tmp_path, name, merged):
    """In the authors' code, matrices are merged only if a folder's name contains "lora", and lost otherwise."""
    kept(adapted(model), tmp_path / name / 'checkpoint-1')
    final = write_final_model(tmp_path / name, merged=merged)
    assert (final / 'adapter_model.safetensors').exists() is not merged
    if not merged:
        merge(final, tmp_path / 'out')
        final = tmp_path / 'out'
    torch.testing.assert_close(answer(checkpoint.load(final, 'cpu', None)), answer(model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('key', 'value', 'says'),
    [
        ('r', 10**9, 'rank from 1 to 4096, got r = 1000000000'),
        ('r', 'x', 'got r = x'),
        ('lora_alpha', -1, 'lora_alpha is -1'),
        ('lora_alpha', float('nan'), 'NaN is not a finite number'),
        ('target_modules', '(a+)+$', r'target_modules are \(a\+\)\+\$, expected names'),
        ('target_modules', [], 'target_modules'),
        ('target_modules', ['q_proj'], 'lacks LoRA matrices, or has others than its model'),
        ('target_modules', 'nothing', 'do not fit its model'),
        ('peft_type', 'IA3', 'not of LoRA matrices'),
        ('megatron_core', 'evil.core', 'megatron_core is evil.core, which is more than plain LoRA'),
        ('modules_to_save', ['norm'], 'modules_to_save'),
        ('use_dora', True, 'use_dora is True'),
        ('rank_pattern', {'(a+)+$': 3}, 'rank_pattern'),
        ('auto_mapping', {'base_model_class': 'Evil', 'parent_library': 'evil'}, ''),
    ],
    ids=str,
)
def test_configurations_of_adapters_are_checked(model, tmp_path, monkeypatch, key, value, says):
    """Nothing but plain LoRA is merged, and no module that the file names is imported."""
    kept(adapted(model), tmp_path / 'run')
    file = tmp_path / 'run' / 'adapter_config.json'
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    (tmp_path / 'evil.py').write_text('raise SystemExit')
    monkeypatch.syspath_prepend(tmp_path)
    if not says:
        merge(tmp_path / 'run', tmp_path / 'out')
        return
    with pytest.raises(ModelError, match=says):
        merge(tmp_path / 'run', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
