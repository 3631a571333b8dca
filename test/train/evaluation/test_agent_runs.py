"""`instructsam eval --engine agent`: a simulated policy behind HTTP, failures, resuming, conversations, reports."""

import argparse
import json
import os
import re

import pytest
from chat_server import answers, chat_server, fails
from simulated_policy import SimulatedPolicy, oracle_choice, phrase_of

from instructsam.core import InstructSAM, cli
from instructsam.train.engines.agent.backends import ConceptBackend
from instructsam.train.engines.agent.options import budget
from instructsam.train.engines.agent.tools import suppress_overlaps
from instructsam.train.engines.concept import ConceptEngine
from instructsam.train.evaluation import evaluate as evaluation
from instructsam.train.evaluation.agent_runs import share_of, total_of
from instructsam.train.evaluation.figures.summary import summarise
from instructsam.train.evaluation.query import Order, Outcome
from instructsam.train.evaluation.running.conversations import read_conversations
from instructsam.train.evaluation.running.run_folder import RunError, read_run
from instructsam.train.evaluation.running.sources import FileSource
from instructsam.train.evaluation.tabletop import draw_queries
from instructsam.train.vlm.budget import BudgetSettings, Spending

SCENES = int(os.environ.get('INSTRUCTSAM_AGENT_SCENES', 1))
SEED = 7  # SAM3's own queries of the built-in model find something in its first scene


@pytest.fixture(scope='module')
def images(opengl):
    return [draw_queries(index, 'val', SEED) for index in range(SCENES)]


@pytest.fixture(scope='module')
def find(images):
    """Return the masks of a phrase, from a segmenter of its own; each scene is encoded once."""
    backend = ConceptBackend(ConceptEngine.from_engine(InstructSAM.from_pretrained('tabletop', device='cpu')))
    encoded = {image.image: backend.encode(image.load()) for image in images}

    def find(image, phrase):
        return suppress_overlaps(backend.segment(encoded[image.image], phrase))

    return find


@pytest.fixture
def server(images, find):
    policy = SimulatedPolicy(images, lambda image, phrase: [mark.mask for mark in find(image, phrase)])
    with chat_server(answers(policy)) as server:
        yield server


@pytest.fixture
def evaluate(server, images, tmp_path, monkeypatch):
    """Return a function that runs the command and returns its exit code and the figures.

    The scenes are drawn once for all tests rather than by each run.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluation, 'open_source', lambda args: FileSource(images, args.limit))

    def evaluate(name, *options, url=None):
        code = cli.main(
            ['eval', 'tabletop', '--split', 'val', '--seed', str(SEED), '--scenes', str(SCENES), '--device', 'cpu',
             '--results', name, '--json', f'{name}.json', '--engine', 'agent', '--vlm', url or server.url,
             '--vlm-model', 'simulated', *options]
        )  # fmt: skip
        return code, json.loads((tmp_path / f'{name}.json').read_text()) if code in (0, 3) else None

    return evaluate


def without_times(folder):
    """Return the lines of a run, results and conversations, without times."""
    lines = []
    for file in sorted(folder.glob('*.jsonl')):
        for line in file.read_text().splitlines():
            document = json.loads(line)
            for key in ('timings_ms', 'seconds', 'crc32'):
                document.pop(key, None)
            for exchange in document.get('exchanges', ()):
                exchange.pop('seconds')
            lines.append((file.name, json.dumps(document)))
    return lines


def test_a_perfect_policy_reaches_the_oracle(server, evaluate, images, find, tmp_path, capsys):
    """The figures are those of the best choice among the segmenter's masks, computed without the agent."""
    expected = []
    for index, image in enumerate(images):
        for number, query in enumerate(image.queries):
            marks = find(image, phrase_of(query))
            chosen = [marks[choice - 1] for choice in oracle_choice([mark.mask for mark in marks], query)]
            outcome = Outcome(
                Order(index, number, len(image.queries)),
                image.image,
                query,
                masks=tuple(mark.mask for mark in chosen),
                scores=tuple(mark.score for mark in chosen),
                timings_ms={'segment': 0.0},
            )
            expected.append(outcome)
    assert sum(len(outcome.masks) for outcome in expected) > 0
    figures = summarise(expected, 0.5, 1)['all']
    code, document = evaluate('first')
    assert code == 0
    for name in ('queries', 'mAP', 'AP50', 'gIoU', 'cIoU', 'no_target_accuracy', 'target_accuracy'):
        assert document['all'][name] == pytest.approx(figures[name])
    assert document['engine'] == 'agent'
    assert document['vlm']['model'] == 'simulated'
    assert document['prompts'] == {'': '{text}'}
    assert len(document['agent_prompts']) == 16
    assert 2 <= document['usage']['rounds'] <= 3
    printed = capsys.readouterr().out
    assert 'agent simulated with tabletop on tabletop val' in printed
    assert re.search(r'a sample takes [\d.]+ seconds, 2\.0 rounds, 0\.0 checks, 2\.0 calls', printed)
    conversations = read_conversations(tmp_path / 'first')
    assert set(conversations) == {outcome.query.id for outcome in expected}
    assert all(len(each['exchanges']) == each['rounds'] == 2 for each in conversations.values())

    # A second run is the same byte by byte apart from times, and the same command does not ask again.
    assert evaluate('second')[0] == 0
    assert without_times(tmp_path / 'first') == without_times(tmp_path / 'second')
    asked = len(server.requests)
    assert evaluate('first')[0] == 0
    assert len(server.requests) == asked

    # Reports on both, beside a run of the model.
    assert cli.main(['eval', 'compare', 'first', 'second']) == 0
    printed = capsys.readouterr().out
    assert re.search(r'calls +2 +2 +1', printed)
    assert re.search(r'seconds +[\d.]+ +[\d.]+ +[\d.]+', printed)
    assert cli.main(['eval', 'report', 'first']) == 0
    assert 'calls per instruction' in (tmp_path / 'report.html').read_text()


def test_failed_queries_are_asked_again(server, evaluate, tmp_path, capsys):
    """The endpoint fails for some queries: the others have results, and the same command asks those again."""
    failing = [fails(400, {'error': {'message': 'context too long'}}) for _ in range(2)]
    server.actions = failing
    code, document = evaluate('run')
    assert code == 3
    assert document['failed']['queries'] == 2
    assert 'context too long' in document['failed']['first'][0]
    both = document['failed']['as_empty']
    assert both['queries'] == document['all']['queries'] + 2
    assert 'with failed samples as empty answers: n' in capsys.readouterr().out
    conversations = read_conversations(tmp_path / 'run')
    failed = [each for each in conversations.values() if each['error']]
    assert len(failed) == 2
    code, document = evaluate('run')
    assert code == 0
    assert document['failed'] == {'queries': 0, 'first': []}
    assert 'as_empty' not in document['failed']
    assert not any(each['error'] for each in read_conversations(tmp_path / 'run').values())


def test_a_run_that_was_stopped_goes_on(server, evaluate, tmp_path):
    """A refused key ends the run at once with a message; what was answered stays, also behind a truncated line."""
    policy = server.default
    server.actions = [policy] * 6 + [fails(401)]
    assert evaluate('run')[0] == 2
    done = len(read_run(tmp_path / 'run').outcomes)
    assert done == 3
    with (tmp_path / 'run/conversations-00000.jsonl').open('ab') as file:
        file.write(b'{"id": "0-9", "half of a li')
    asked = len(server.requests)
    code, document = evaluate('run')
    assert code == 0
    assert len(server.requests) - asked == 2 * (document['all']['queries'] - done)
    assert len(read_conversations(tmp_path / 'run')) == document['all']['queries']


def test_a_budget_ends_a_run_that_a_larger_one_resumes(server, evaluate, tmp_path, capsys):
    """Two calls answer a sample. The budget counts those of all parts, and the samples that it left are asked then."""
    code, document = evaluate('run', '--vlm-budget', 'calls=5,tokens=100000')
    assert (code, document['all']['queries'], document['images_left']) == (3, 2, SCENES)
    assert 'stopped: the budget of 5 calls is used up' in capsys.readouterr().err
    assert len(server.requests) == 5
    assert evaluate('run', '--vlm-budget', 'calls=5')[0] == 3
    assert len(server.requests) == 5
    code, document = evaluate('run', '--vlm-budget', 'calls=1000')
    assert (code, 'images_left' in document) == (0, False)
    assert len(server.requests) == 5 + 2 * (document['all']['queries'] - 2)
    assert len(read_conversations(tmp_path / 'run')) == document['all']['queries']
    assert json.loads((tmp_path / 'run/spending-00000.json').read_text())['calls'] == len(server.requests)


def test_processes_share_what_is_left_of_a_budget():
    limits = BudgetSettings(calls=100, tokens=1000, money=1.0, prompt_price=1e6)
    total = total_of([Spending(30, 0, 90, 5.0), Spending(20, 0, 10, 7.0)])
    assert total == Spending(50, 0, 100, 7.0)
    shares = [share_of(limits, total, own, 2) for own in (Spending(30, 0, 90), Spending(20, 0, 10))]
    assert [(each.calls, each.tokens, each.money) for each in shares] == [(55, 540, 0.5), (45, 460, 0.5)]
    assert share_of(limits, Spending(99), Spending(), 4).calls == 1


def test_a_conversation_that_was_changed(server, evaluate, tmp_path):
    assert evaluate('run', '--limit', '1')[0] == 0
    file = tmp_path / 'run/conversations-00000.jsonl'
    file.write_text(file.read_text().replace('"rounds":2', '"rounds":3'))
    with pytest.raises(RunError, match='line 2 is not a conversation'):
        read_conversations(tmp_path / 'run')


def test_known_replies_cost_nothing(server, evaluate):
    evaluate('first', '--limit', '2', '--vlm-cache', 'cache.sqlite')
    asked = len(server.requests)
    code, document = evaluate('second', '--limit', '2', '--vlm-cache', 'cache.sqlite')
    assert code == 0
    assert len(server.requests) == asked == 4
    assert document['usage']['cached'] == 2


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['--own-queries'], '--own-queries and --phrase belong to --engine model'),
        (['--phrase', 'given'], '--own-queries and --phrase belong to --engine model'),
        (['--agent-masks', 'sam3'], '--agent-masks sam3 needs --sam3'),
        (['--sam3', 'nowhere'], 'there is no folder nowhere'),
        (['--sam3', 'nowhere', '--agent-masks', 'concept'], '--sam3 belongs to --agent-masks sam3'),
        (['--agent-repairs', '-1'], 'limits of the agent'),
        (['--vlm', 'localhost:8000'], 'the URL of the VLM is http'),
        (['--engine', 'model'], '--vlm belongs to --engine agent'),
    ],
)
def test_bad_options(evaluate, capsys, options, said):
    assert evaluate('run', *options)[0] == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('calls=0', 'calls of the budget must be above 0'),
        ('cents=5', "'cents' is none of calls, tokens, seconds"),
        ('calls=5,calls=6', 'calls is given twice'),
        ('calls=5.5', "calls is a whole number, got '5.5'"),
        ('seconds=nan', 'seconds of the budget must be above 0, got nan'),
        ('money=1', 'a budget in money needs prompt_price'),
        ('', "'' is none of"),
    ],
)
def test_bad_budgets(text, said):
    with pytest.raises(argparse.ArgumentTypeError, match=re.escape(said)):
        budget(text)


def test_other_settings_are_another_run(evaluate, capsys):
    assert evaluate('run', '--limit', '1')[0] == 0
    assert evaluate('run', '--limit', '1', '--agent-rounds', '5')[0] == 2
    assert 'limits.rounds was 12, now 5' in capsys.readouterr().err


def test_one_image(server, images, tmp_path, capsys):
    """`instructsam segment --engine agent` answers about one file."""
    from instructsam.core.files.image_file import write_image

    write_image(tmp_path / 'scene.png', images[0].load())
    query = next(query for query in images[0].queries if query.ground_truth)
    arguments = ['segment', str(tmp_path / 'scene.png'), query.text, '--device', 'cpu', '--engine', 'agent']
    endpoint = ['--vlm', server.url, '--vlm-model', 'simulated']
    assert cli.main([*arguments, *endpoint, '--json', str(tmp_path / 'result.json')]) == 0
    document = json.loads((tmp_path / 'result.json').read_text())
    assert document['model'] == 'agent simulated'
    assert document['usage']['calls'] == 2
    assert 'rounds 2, checks 0, calls 2' in capsys.readouterr().out
    assert cli.main([*arguments, *endpoint, '--phrase', 'mug']) == 2
    assert '--phrase belongs to --engine model' in capsys.readouterr().err
    assert cli.main(arguments) == 2
    assert '--engine agent needs --vlm' in capsys.readouterr().err
