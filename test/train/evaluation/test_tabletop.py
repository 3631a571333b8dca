"""`instructsam eval tabletop`: with stand-ins that know the ground truth, and with the built-in model on scenes."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from instructsam.core import cli, exit_codes
from instructsam.core.result import Instance, Result

pytest.importorskip('mujoco', reason='the tabletop world is rendered with MuJoCo: pip install mujoco')
from instructsam.train.evaluation import evaluate
from instructsam.train.evaluation.figures.summary import summarise
from instructsam.train.evaluation.running.prompting import PromptOptions, answer_images
from instructsam.train.evaluation.tabletop import TabletopSource, draw_queries
from instructsam.train.tabletop.language.instructions import KINDS

SEED, SCENES = 11, 5
pytestmark = pytest.mark.usefixtures('opengl')
FOUND = ('mAP', 'AP50', 'AP75', 'gIoU', 'cIoU')


@pytest.fixture(scope='module')
def scenes(opengl):
    """A few scenes of each split, with at least one instruction that has no target."""
    return {split: [draw_queries(index, split, SEED) for index in range(SCENES)] for split in ('test', 'unseen')}


class Oracle:
    """Stands in for the engine: it knows the scenes and answers with the ground truth."""

    warning, device = '', 'cpu'

    def __init__(self, drawn):
        self.drawn, self.asked, self.encoded = drawn, [], 0

    def encode(self, image):
        self.encoded += 1
        return next(scene for scene in self.drawn if np.array_equal(scene.pixels, image))

    def answer_for(self, phrases):
        return tuple(phrases)

    def segment(self, scene, text, **options):
        self.asked.append((text, options))
        query = next(one for one in scene.queries if one.text == text)
        phrases = options['answer'] or query.phrases
        instances = tuple(Instance(mask, score, phrases[0], 0) for mask, score in self.finds(scene, query))
        return Result(text, ', '.join(phrases), *scene.pixels.shape[:2], instances, phrases=phrases)

    def finds(self, scene, query):
        """(mask, score) pairs, best first."""
        return [(mask, 0.9) for mask in query.ground_truth]


class Unsure(Oracle):
    """Stands in for an engine that finds the targets and scores them below the threshold."""

    def finds(self, scene, query):
        return [(mask, 0.3) for mask in query.ground_truth]


class Silent(Oracle):
    """Stands in for an engine that never finds anything."""

    def finds(self, scene, query):
        return []


class Everything(Oracle):
    """Stands in for an engine that answers every instruction with the targets of all."""

    def finds(self, scene, query):
        return {mask.counts.tobytes(): (mask, 0.9) for one in scene.queries for mask in one.ground_truth}.values()


def figures(stand_in, drawn, **options):
    options = PromptOptions(**options)
    return summarise(list(answer_images(stand_in(drawn), drawn, options)), options.threshold, details=False)


@pytest.mark.parametrize('split', ['test', 'unseen'])
def test_the_ground_truth_scores_100_everywhere(scenes, split):
    found = figures(Oracle, scenes[split])
    everywhere = [found['all'], *(one for name in found if name.startswith('by_') for one in found[name].values())]
    assert len(everywhere) > 5
    for group in everywhere:
        assert {group[name] for name in (*FOUND, 'no_target_accuracy', 'answer_accuracy')} <= {100, None}
        assert group['gIoU'] == group['cIoU'] == group['answer_accuracy'] == 100
    assert found['all']['mAP'] == 100
    assert found['by_targets']['0']['mAP'] is None
    assert found['by_targets']['0']['no_target_accuracy'] == 100
    assert found['by_targets']['2+']['mAP'] == 100
    assert found['by_targets']['2+']['no_target_accuracy'] is None


def test_everything_is_not_a_good_answer(scenes):
    found = figures(Everything, scenes['test'])
    assert found['all']['no_target_accuracy'] == 0 == found['by_targets']['0']['gIoU']
    assert 0 < found['by_targets']['1']['mAP'] < 60
    assert 0 < found['all']['gIoU'] < 60
    assert found['by_targets']['2+']['mAP'] < 100


def test_nothing_is_not_a_good_answer_either(scenes):
    found = figures(Silent, scenes['test'])
    assert found['all']['mAP'] == found['by_targets']['1']['gIoU'] == found['all']['cIoU'] == 0
    assert found['all']['no_target_accuracy'] == 100


def test_scores_below_the_threshold_count_in_ap_only(scenes):
    found = figures(Unsure, scenes['test'])
    assert found['all']['mAP'] == 100
    assert found['by_targets']['1']['gIoU'] == 0
    assert figures(Unsure, scenes['test'], threshold=0.2)['by_targets']['1']['gIoU'] == 100


def test_groups_add_up(scenes):
    drawn = scenes['unseen']
    found, asked = figures(Oracle, drawn), sum(len(scene.queries) for scene in drawn)
    assert found['all']['queries'] == asked > 2 * SCENES
    for group in ('by_targets', 'by_kind'):
        assert sum(one['queries'] for one in found[group].values()) == asked
    assert set(found['by_kind']) <= {*KINDS, 'none'}
    assert set(found['by_novelty']) <= {'pair', 'combination', 'wording'}
    assert found['by_novelty']
    assert 'by_novelty' not in figures(Oracle, scenes['test'])


def test_arguments_of_the_engine(scenes):
    drawn = scenes['test']
    oracle = Oracle(drawn)
    outcomes = list(answer_images(oracle, drawn, PromptOptions(max_new_tokens=7)))
    assert oracle.encoded == SCENES
    assert len(oracle.asked) == len(outcomes)
    wanted = {'score_threshold': 0.05, 'answer': None, 'max_new_tokens': 7, 'suppress_duplicates': True}
    assert all(options == wanted for _, options in oracle.asked)
    assert all(one.timings_ms['segment'] > 0 for one in outcomes)
    assert sum('encode' in one.timings_ms for one in outcomes) == SCENES


def test_forced_answers(scenes):
    drawn = scenes['test']
    for phrase in ('given', 'dummy'):
        oracle = Oracle(drawn)
        found = summarise(list(answer_images(oracle, drawn, PromptOptions(phrase=phrase))), 0.5, details=False)
        assert found['all']['answer_accuracy'] is None
        said = [one.phrases for scene in drawn for one in scene.queries]
        wanted = said if phrase == 'given' else [('object',) * len(phrases) for phrases in said]
        assert [options['answer'] for _, options in oracle.asked] == wanted


def test_an_answer_is_right_if_its_phrases_are(scenes):
    class Mumbler(Oracle):
        """Stands in for an engine that finds the targets and names them wrongly."""

        def segment(self, *args, **options):
            return replace(super().segment(*args, **options), phrases=('thing',))

    found = figures(Mumbler, scenes['test'])['all']
    assert found['answer_accuracy'] == 0
    assert found['mAP'] == 100


def test_some_kinds(scenes):
    kinds = ['category', 'none']
    drawn = [scene for _, scene in TabletopSource('test', SEED, SCENES, kinds).open(range(SCENES))]
    wanted = [[one.text for one in scene.queries if one.groups['kind'] in kinds] for scene in scenes['test']]
    assert [[one.text for one in scene.queries] for scene in drawn] == wanted
    assert any(wanted)


def test_a_limit(scenes):
    """The limit may cut within a scene, and is the same wherever the run resumes."""
    counts = [len(scene.queries) for scene in scenes['test']]
    source = TabletopSource('test', SEED, SCENES, limit=counts[0] + 2)
    assert len(source) == 2
    wanted = [*scenes['test'][0].queries, *scenes['test'][1].queries[:2]]
    drawn = [scene for _, scene in source.open(range(2))]
    assert [one.text for scene in drawn for one in scene.queries] == [one.text for one in wanted]
    ((position, last),) = source.open([1])
    assert position == 1
    assert len(last.queries) == 2


@pytest.fixture
def command(monkeypatch, capsys, scenes, tmp_path):
    """Return `eval` as a function of its arguments: (exit code, stdout, stderr), with the oracle and its scenes."""

    def already_drawn(function, values, workers):
        yield from (scenes['test'][index] for index in values)

    monkeypatch.setattr(evaluate, 'load_engine', lambda args, process, agent: Oracle(scenes['test']))
    monkeypatch.setattr('instructsam.train.evaluation.tabletop.in_order', already_drawn)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        try:
            code = cli.main(['eval', *arguments])
        except SystemExit as end:  # argparse
            code = end.code
        return code, *capsys.readouterr()

    return run


def test_table_and_json(command, tmp_path):
    code, out, err = command('tabletop', '--scenes', '2', '--json', str(tmp_path / 'a.json'))
    assert (code, err) == (0, '')
    for shown in ('tabletop on tabletop test', 'mAP', '100.0', 'targets 2+', 'kind category', 'T-acc', 'interval'):
        assert shown in out
    assert all(len(line) <= 80 for line in out.splitlines())
    document = json.loads((tmp_path / 'a.json').read_text())
    settings = {
        'benchmark': 'tabletop',
        'split': 'test',
        'seed': 0,
        'scenes': 2,
        'phrase': 'generated',
        'threshold': 0.5,
        'model': 'tabletop',
        'device': 'cpu',
    }
    assert settings.items() <= document.items()
    assert document['all']['gIoU'] == 100
    code, out, err = command('tabletop', '--scenes', '2', '--json', '-')
    assert code == 0
    assert 'targets 2+' in err
    assert json.loads(out)['by_kind'].keys() == document['by_kind'].keys()


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        ([], 'BENCHMARK'),
        (['bogus'], "invalid choice: 'bogus'"),
        (
            ['tabletop', '--kinds', 'category', 'odd'],
            "--kinds: unknown type 'odd', expected one of category, attribute",
        ),
        (['tabletop', '--split', 'all'], '--split'),
        (['tabletop', '--scenes', '0'], '--scenes'),
        (['tabletop', '--seed', '1.5'], '--seed'),
        (['tabletop', '--phrase', 'none'], '--phrase'),
        (['tabletop', '--threshold', 'nan'], '--threshold'),
        (['tabletop', '--workers', '0'], '--workers'),
        (['tabletop', '--model', './absent'], './absent'),
        (['tabletop', '--json', 'absent/a.json'], 'there is no folder absent'),
        (['tabletop', '--json', '/proc/a.json', '--scenes', '1'], 'cannot write /proc/a.json'),
    ],
    ids=ascii,
)
def test_bad_arguments(command, arguments, said):
    code, out, err = command(*arguments)
    assert (code, out) == (exit_codes.STORAGE if '/proc' in said else exit_codes.USAGE, '')
    assert said in err
    assert err.startswith('instructsam: error: ')
    assert err.count('\n') == 1


def test_no_instruction_of_a_type(command, scenes, monkeypatch):
    monkeypatch.setattr(
        'instructsam.train.evaluation.tabletop.in_order',
        lambda function, values, workers: (replace(scenes['test'][0], queries=()) for _ in values),
    )
    code, _, err = command('tabletop', '--kinds', 'none', '--scenes', '1')
    assert code == 2
    assert 'nothing to ask' in err


def test_a_finished_run_with_scenes_without_instructions_needs_no_model(command, scenes, monkeypatch):
    def drawn(function, values, workers):
        yield from (replace(scenes['test'][0], queries=()) if index else scenes['test'][0] for index in values)

    monkeypatch.setattr('instructsam.train.evaluation.tabletop.in_order', drawn)
    code, out, _ = command('tabletop', '--kinds', 'category', '--scenes', '2')
    assert code == 0
    monkeypatch.setattr(evaluate, 'load_engine', None)
    assert command('tabletop', '--kinds', 'category', '--scenes', '2')[:2] == (0, out)


def test_what_is_found_takes_part_in_ap(command, tmp_path):
    """The header says so if the threshold is below the benchmark's --lowest."""
    assert command('tabletop', '--scenes', '1', '--threshold', '0.03', '--json', 'a.json')[0] == 0
    assert json.loads((tmp_path / 'a.json').read_text())['lowest'] == 0.03


def test_the_built_in_model(tmp_path, capfd):
    path = tmp_path / 'a.json'
    chosen = ['--scenes', '2', '--seed', '5', '--split', 'unseen', '--phrase', 'given', '--json', str(path)]
    assert cli.main(['eval', 'tabletop', *chosen, '--results', str(tmp_path / 'run')]) == 0
    out, err = capfd.readouterr()
    document = json.loads(path.read_text())
    assert document['warning'] in out
    assert 'rendered tables only' in out
    assert 'scenes' not in err
    drawn = [draw_queries(index, 'unseen', 5) for index in range(2)]  # the same scenes, drawn in this process
    assert document['all']['queries'] == sum(len(scene.queries) for scene in drawn)
    assert document['all']['latency_ms'] > 1
    assert 10 < document['all']['mAP'] < 100
    assert document['all']['answer_accuracy'] is None
    assert 'by_novelty' in document
    assert 'torch' in sys.modules


def test_a_model_that_writes_its_own_answer(scenes):
    from instructsam.core import InstructSAM

    engine = InstructSAM.from_pretrained('tabletop')
    outcomes = list(answer_images(engine, scenes['test'][:1], PromptOptions(max_new_tokens=1)))
    assert summarise(outcomes, 0.5)['all']['answer_accuracy'] == 0
