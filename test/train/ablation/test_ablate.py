"""`instructsam train ablate`: from a plan to the table.

Models are tiny, and scenes are made by hand instead of drawn, so that the figures mean nothing. All tests but one train
in this process.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from instructsam.core import cli
from instructsam.core.errors import InstructSAMError
from instructsam.core.model import checkpoint
from instructsam.core.model.config import ModelConfig
from instructsam.core.rle import Rle
from instructsam.train.ablation import study
from instructsam.train.ablation.plan import read_plan, write_recipe
from instructsam.train.ablation.report import results, table
from instructsam.train.ablation.variants import VARIANTS
from instructsam.train.evaluation.query import ImageQueries, Query
from instructsam.train.loop import trainer
from instructsam.train.loop.recipe import RecipeError, read_recipe
from instructsam.train.loop.run import run
from instructsam.train.weights.heads import HEADS


def scenes_made_by_hand(questions):
    """Replace `draw_scenes`: one image with two queries, of which one has no target."""
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    mask = np.zeros((60, 80), bool)
    mask[10:40, 10:50] = True
    queries = [
        Query(phrase, f'the {phrase}', masks, phrases=(phrase,), groups={'kind': 'category'})
        for phrase, masks in (('red mug', (Rle.encode(mask),)), ('cat', ()))
    ]
    return [ImageQueries('by hand', tuple(queries), image)] * questions.scenes


@pytest.fixture
def trained(monkeypatch):
    """Train in this process and evaluate on scenes made by hand; list the recipes that are run."""
    files = []

    def train(file, processes):
        files.append(str(file.relative_to(file.parents[2])))
        run(read_recipe(file))

    monkeypatch.setattr(study, 'train', train)
    monkeypatch.setattr(study, 'draw_scenes', scenes_made_by_hand)
    monkeypatch.setattr(study, 'check_drawing', lambda: None)
    return files


@pytest.fixture
def plan(recipe, tmp_path, start_model):
    """Return a function that writes a plan with the given keys, of two steps per stage, and returns its file."""
    base = str(start_model())

    def write(**keys):
        raw = {
            'output': str(tmp_path / 'ablation'),
            'base': base,
            'stage1': str(recipe('one', branches=True)),
            'stage2': str(recipe('two', instruct={'deep_supervision': False})),
            'stage1_changes': ['steps=2', 'max_phrases=2'],
            'stage2_changes': ['steps=2', 'max_phrases=2'],
            'questions': {'scenes': 1, 'max_new_tokens': 4},
            **keys,
        }
        path = tmp_path / 'plan.yaml'
        path.write_text(yaml.safe_dump(raw))
        return path

    return write


def ablate(capsys, *argv):
    """Return (exit code, stdout, stderr) of the command."""
    try:
        code = cli.main(['train', 'ablate', *map(str, argv)])
    except SystemExit as end:  # argparse
        code = end.code
    return code, *capsys.readouterr()


def test_a_plan_without_stage_1_trains_stage_2_from_the_base(plan, trained, capsys, tmp_path):
    path = plan(stage1='', stage1_changes=[], variants=['full'], seeds=[1])
    found = read_plan(path)
    assert {stage: each.model for stage, each in found.recipes('full', 1, 'base').items()} == {'stage2': 'base'}
    assert ablate(capsys, path)[0] == 0
    assert trained == ['full/seed1/stage2.yaml']
    assert list(json.loads((tmp_path / 'ablation/results.json').read_text())['rows']) == ['full']
    for keys in ({'variants': ['full', 'no_stage1']}, {'variants': ['full'], 'stage1_changes': ['steps=1']}):
        with pytest.raises(RecipeError, match='stage1 is empty'):
            read_plan(plan(**{'stage1': '', 'stage1_changes': [], **keys}))


def test_stage_1_may_leave_a_plan(plan):
    """A run of stage 1 that was stopped is no longer part of it."""
    before = read_plan(plan())
    run = before.folder('full', 1) / 'stage1'
    write_recipe(before.recipes('full', 1, before.base)['stage1'], run.with_suffix('.yaml'))
    (run / 'final').mkdir(parents=True)
    (run / 'final' / checkpoint.SINGLE).touch()
    study.check_recipes(before)
    study.check_recipes(read_plan(plan(stage1='', stage1_changes=[], variants=['full'])))


def test_a_whole_plan(plan, trained, capsys, tmp_path):
    changes = {f'stage{number}_changes': ['steps=2', 'save_every=9', 'max_phrases=2'] for number in (1, 2)}
    names = [name for name in VARIANTS if name not in ('causal', 'k50')]
    path, out = plan(seeds=[3], variants=names, **changes), tmp_path / 'ablation'
    code, stdout, err = ablate(capsys, path)
    assert code == 0, err
    runs = [
        f'{name}/seed3/{stage}.yaml'
        for name in ('full', 'no_bank', 'no_stage1', 'k4')
        for stage in ('stage1', 'stage2')
        if (name, stage) != ('no_stage1', 'stage1')
    ]
    assert trained == runs
    document = json.loads((out / 'results.json').read_text())
    assert list(document['rows']) == names
    for name in names:
        assert document['figures'][name]['3']['all']['queries'] == 2
        assert f'`{name}`' in stdout
        assert f'`{name}`' in (out / 'results.md').read_text()
    settings = {name: of['3']['settings'] for name, of in document['figures'].items() if of}
    full = settings['full'].pop('model')
    assert settings['k10'].pop('model') == settings['dummy_phrase'].pop('model') == full
    assert settings['k10'] == settings['full']
    assert settings['dummy_phrase']['phrase'] == 'dummy'
    assert settings['no_llm_queries']['own_queries']
    assert settings['no_bank']['mode'] == 'autoregressive'
    assert document['figures']['dummy_phrase']['3']['all']['answer_accuracy'] is None
    for name, slots in (('k4', 4), ('full', 10)):
        assert ModelConfig.from_folder(out / name / 'seed3' / 'stage2' / 'final').num_queries == slots

    weights = {
        name: load_file(out / name / 'seed3' / 'stage2' / 'final' / 'model.safetensors')
        for name in ('full', 'no_bank', 'no_stage1')
    }
    bank = {name: of['model.mask_queries'] for name, of in weights.items()}
    base = load_file(read_plan(path).base + '/model.safetensors')['model.mask_queries']
    assert torch.equal(bank['no_bank'], base)
    assert not torch.equal(bank['full'], base)
    assert not torch.equal(bank['no_stage1'], bank['full'])

    trained.clear()
    before = (out / 'results.json').read_text()
    assert ablate(capsys, path)[:2] == (0, stdout[stdout.index('| variant') :])
    assert not trained
    assert (out / 'results.json').read_text() == before


def test_a_stopped_study_resumes(plan, trained, capsys, tmp_path, monkeypatch):
    """A study stopped in the middle of a stage, and before measuring, ends like one that was not stopped."""
    whole, cut = plan(output=str(tmp_path / 'whole')).read_text(), plan(output=str(tmp_path / 'cut'))
    (tmp_path / 'whole.yaml').write_text(whole)
    only = ('--only', 'no_bank', '--seeds', 5)
    assert ablate(capsys, tmp_path / 'whole.yaml', *only)[0] == 0
    steps, step = [], trainer.StageTrainer.training_step

    def stopped(self, *args, **kwargs):
        steps.append(1)
        if len(steps) == 4:
            raise InstructSAMError('the power failed')
        return step(self, *args, **kwargs)

    trained.clear()
    monkeypatch.setattr(trainer.StageTrainer, 'training_step', stopped)
    code, _, err = ablate(capsys, cut, *only)
    assert code == 2
    assert 'the power failed' in err
    assert not (tmp_path / 'cut' / 'results.json').exists()
    assert trained == ['no_bank/seed5/stage1.yaml', 'no_bank/seed5/stage2.yaml']

    trained.clear()
    monkeypatch.setattr(study, 'measure_variant', None)
    assert ablate(capsys, cut, *only)[0] == 1  # the error is raised between training and measuring
    assert trained == ['no_bank/seed5/stage2.yaml']
    assert len(steps) == 5
    monkeypatch.undo()
    monkeypatch.setattr(study, 'draw_scenes', scenes_made_by_hand)
    monkeypatch.setattr(study, 'check_drawing', lambda: None)
    assert ablate(capsys, cut, *only)[0] == 0
    final = 'no_bank/seed5/stage2/final/model.safetensors'
    first, second = load_file(tmp_path / 'whole' / final), load_file(tmp_path / 'cut' / final)
    assert all(torch.equal(first[name], second[name]) for name in first)
    figures = [json.loads((tmp_path / name / 'no_bank/seed5/figures.json').read_text()) for name in ('whole', 'cut')]
    for each in figures:
        del each['settings']['model'], each['all']['latency_ms']
    assert figures[0]['all'] == figures[1]['all']
    assert figures[0]['settings'] == figures[1]['settings']


def test_equal_budgets(plan, recipe):
    wide = recipe('wide', batch_size=2, accumulation=2)
    found = read_plan(plan(stage2=str(wide), stage1_changes=['steps=12'], stage2_changes=['steps=5']))
    full, short = found.recipes('full', 7, 'base'), found.recipes('no_stage1', 7, 'base')
    assert [r.steps for r in full.values()] == [12, 5]
    assert [r.steps for r in short.values()] == [5 + 12 // 4]
    assert full['stage1'].model == short['stage2'].model == 'base'
    assert full['stage2'].model == full['stage1'].output + '/final'
    for recipes in (full, short, found.recipes('causal', 7, 'base')):
        assert all(r.seed == 7 and r.learning_rates == full['stage2'].learning_rates for r in recipes.values())
    for name, mode in (('full', 'consistent'), ('causal', 'causal'), ('no_bank', 'autoregressive')):
        assert {r.instruct.mode for r in found.recipes(name, 7, 'base').values()} == {mode}


@pytest.mark.parametrize(
    ('keys', 'argv', 'message'),
    [
        ({'variants': ['full', 'half']}, (), 'unknown variants: half. Known: full, no_bank'),
        ({'seeds': []}, (), 'seeds'),
        ({'scene': 3}, (), 'unknown keys: scene'),
        ({'questions': {'scenes': 'many'}}, (), 'questions: scenes'),
        ({'stage1': 'absent.yaml'}, (), 'absent.yaml cannot be read'),
        ({'stage1_changes': ['steps=0']}, (), 'a number of steps'),
        ({'stage2_changes': ['steps=2', 'stage=base']}, (), 'stage instruct'),
        ({}, ('--only', 'half'), "invalid choice: 'half'"),
        ({}, ('--seeds', 'x'), '--seeds'),
    ],
    ids=str,
)
def test_bad_plans(plan, trained, capsys, keys, argv, message):
    code, _, err = ablate(capsys, plan(**keys), *argv)
    assert code == 2
    assert message in err
    assert err.startswith('instructsam: error: ')
    assert not trained


def test_starts_of_another_base_are_written_again(plan, trained, capsys, tmp_path, start_model, monkeypatch):
    """They hold the auxiliary heads of the base as well, so that all variants start alike."""
    monkeypatch.setattr(study, 'train_variant', lambda plan, name, seed, _: study.start_folder(plan, name, seed))
    monkeypatch.setattr(study, 'measure_variant', lambda *_: None)
    base, start = start_model(max_seg_nums=10), tmp_path / 'ablation/no_bank/seed1/start'
    for content in (b'one', b'other'):
        (base / HEADS).write_bytes(content)
        assert ablate(capsys, plan(base=str(base)), '--only', 'no_bank', '--seeds', 1)[0] == 0
        assert (start / HEADS).read_bytes() == content


def test_k10_is_the_full_model(plan, trained, capsys, start_model):
    path = plan(base=str(start_model(max_seg_nums=5)))
    code, _, err = ablate(capsys, path, '--only', 'k10')
    assert code == 2
    assert 'K = 5' in err
    assert not trained


def test_a_changed_plan(plan, trained, capsys, tmp_path, start_model):
    """Changed questions are measured again; a changed recipe or base model needs another output."""
    path = plan(questions={'scenes': 1, 'max_new_tokens': 2})
    assert ablate(capsys, path, '--only', 'no_stage1', '--seeds', 1)[0] == 0
    path = plan(questions={'scenes': 2, 'max_new_tokens': 2})
    assert results(read_plan(path), [1])['rows'] == {}
    assert ablate(capsys, path, '--only', 'no_stage1', '--seeds', 1)[0] == 0
    assert len(trained) == 1
    assert json.loads((tmp_path / 'ablation/results.json').read_text())['rows']['no_stage1']['seeds'] == [1]
    base = start_model(max_seg_nums=10)
    code, _, err = ablate(capsys, plan(base=str(base)), '--only', 'no_stage1', '--seeds', 1)
    assert code == 2
    assert 'ablation was started with other settings (base was' in err
    assert 'base_content was' in err
    for keys, difference in (
        ({'stage2_changes': ['steps=1'], 'questions': {'scenes': 3}}, 'steps was 4, now '),
        ({'stage2_changes': ['steps=1']}, 'steps was 4, now '),  # also if nothing is left to train or measure
        ({'processes': 2}, 'processes was 1, now 2'),
    ):
        code, _, err = ablate(capsys, plan(**keys), '--only', 'no_stage1', '--seeds', 1)
        assert code == 2
        assert difference in err
        assert err.endswith('repeat those to resume it, or give the plan another output\n')
        assert len(trained) == 1


def test_harmless_changes(plan, trained, capsys, tmp_path):
    """Another form of the same recipe, keys that hold their default, speed and places of files may change."""
    path, only = plan(), ('--only', 'no_stage1', '--seeds', 1)
    assert ablate(capsys, path, *only)[0] == 0
    run = tmp_path / 'ablation/no_stage1/seed1'
    written = yaml.safe_load((run / 'stage2.yaml').read_text())
    del written['muon'], written['instruct']['pointing']
    (run / 'stage2.yaml').write_text('# by hand\n' + yaml.safe_dump(written, sort_keys=True))
    record = json.loads((tmp_path / 'ablation/study.json').read_text())
    del record['settings']['processes']
    (tmp_path / 'ablation/study.json').write_text(json.dumps(record))
    path = plan(stage2_changes=['steps=2', 'max_phrases=2', 'workers=1', 'phrases_per_call=2'], questions={'scenes': 2})
    code, _, err = ablate(capsys, path, *only)
    assert code == 0, err
    assert err == f'{tmp_path}/ablation resumes after 1 finished runs\n'
    (tmp_path / 'ablation/study.json').unlink()
    assert 'started with are unknown' in ablate(capsys, path, *only)[2]
    assert len(trained) == 1
    assert yaml.safe_load((run / 'stage2.yaml').read_text())['phrases_per_call'] == 2


def test_training_runs_as_a_command(plan):
    found = read_plan(plan(stage1_changes=['steps=1'], stage2_changes=['steps=1']))
    study.train_variant(found, 'no_stage1', 1, print)
    final = found.folder('no_stage1', 1) / 'stage2' / 'final'
    assert checkpoint.load(final, torch.device('cpu'), None).config.num_queries == 10


def test_the_report(plan):
    """Means, ranges and signs of figures written by hand are correct."""
    found = read_plan(plan())
    shares = {'gIoU': 10.0, 'no_target_accuracy': None, 'answer_accuracy': 50.0}
    measured = {
        'full': [(40.0, 50.0, 20.0), (44.0, 52.0, 20.0)],
        'causal': [(38.0, 53.0, 22.0), (40.0, 51.0, 22.0)],
        'no_stage1': [(45.0, 50.0, 20.0), (46.0, 50.0, 20.0)],
        'no_llm_queries': [(40.0, 50.0, 20.0), (44.0, 52.0, 20.0)],
        'k50': [(41.0, 50.0, 30.0)],
    }
    for name, of_seeds in measured.items():
        for seed, (mean_ap, ciou, latency_ms) in enumerate(of_seeds, 1):
            folder = found.folder(name, seed)
            folder.mkdir(parents=True)
            figures = {'mAP': mean_ap, 'cIoU': ciou, 'latency_ms': latency_ms, **shares}
            document = {'settings': study.settings_of(found, name, seed), 'all': figures}
            (folder / study.FIGURES).write_text(json.dumps(document))
    document = results(found, found.seeds)
    rows = document['rows']
    assert list(rows) == ['full', 'causal', 'no_stage1', 'no_llm_queries', 'k50']
    assert rows['full']['mAP'] == [42, 2]
    assert rows['full']['difference'] == {}
    assert rows['causal']['difference'] == {'mAP': [-3, 1], 'cIoU': [1, 2]}
    assert rows['causal']['sign'] == {'mAP': 'same', 'cIoU': 'mixed'}
    assert rows['no_stage1']['sign'] == {'mAP': 'opposite', 'cIoU': None}
    assert rows['no_llm_queries']['sign']['mAP'] == 'mixed'  # no difference
    assert rows['k50']['seeds'] == [1]
    lines = table(document)
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == 7
    cells = [cell.strip() for cell in lines[3].strip('|').split('|')]
    assert cells == [
        '`causal`',
        '2',
        '39.0 ± 1.0',
        '-3.0 ± 1.0',
        '-2.0',
        'same',
        '52.0 ± 1.0',
        '+1.0 ± 2.0',
        '-12.6',
        'mixed',
        '10.0 ± 0.0',
        '-',
        '50.0 ± 0.0',
    ]


def test_modes_belong_to_stage_instruct(recipe):
    for keys, message in (
        ({'instruct': {'mode': 'fast'}}, 'mode must be one of'),
        ({'instruct': {'mode': 'causal'}, 'stage': 'base'}, 'stage instruct'),
    ):
        with pytest.raises(RecipeError, match=message):
            read_recipe(recipe('a', **keys))


def test_the_plan_in_the_repository():
    found = read_plan(Path(study.__file__).parents[1] / 'configs' / 'tabletop' / 'ablation.yaml')
    assert set(found.variants) == set(VARIANTS)
    assert len(found.seeds) >= 2
