"""The final model gets the moving average of the weights, that of every step."""

import pytest
import torch
from safetensors.torch import load_file

from instructsam.core.cli import main
from instructsam.train.loop.checkpoints import checkpoints


def test_the_final_model_is_the_average_of_all_steps(recipe, tmp_path, capsys):
    path = recipe('run', steps=3, keep=4, ema=0.15, lora={'rank': 2, 'merge': False})
    assert main(['train', 'run', str(path)]) == 0, capsys.readouterr().err
    for file in ('model.safetensors', 'adapter_model.safetensors'):
        first, *later = (load_file(folder / file) for folder in checkpoints(tmp_path / 'run'))
        final, moved = load_file(tmp_path / 'run' / 'final' / file), 0
        assert final.keys() == first.keys()
        for name, average in final.items():
            if torch.equal(first[name], later[-1][name]):
                assert torch.equal(average, first[name])
                continue
            moved += 1
            expected = 0.15 * (0.15 * first[name] + 0.85 * later[0][name]) + 0.85 * later[1][name]
            assert not torch.equal(average, later[-1][name])
            # The start has a weight of at most 0.15 ** 3, and a step changes a weight by about 1e-3.
            assert (average - expected).abs().max() < 2e-4, name
        assert moved > 10
    assert not list((tmp_path / 'run').glob('final/ema*'))
    assert not (tmp_path / 'run' / 'partial').exists()


@pytest.mark.parametrize(
    ('keys', 'message'),
    [
        ({'ema': 0.99}, 'ema needs whole weights in every process: set it to 0'),
        ({'muon': 1.0}, 'muon needs whole matrices in every process: set it to 0'),
    ],
)
def test_sharded_weights_are_refused(recipe, capsys, keys, message):
    path = recipe('run', trainer={'fsdp': True}, **keys)
    assert main(['train', 'run', str(path)]) == 2
    assert message in capsys.readouterr().err
