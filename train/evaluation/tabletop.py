"""The tabletop benchmark: scenes drawn for a seed, every instruction about them asked and the answers measured.

    scenes = (draw(index, 'test', seed=7) for index in range(100))
    figures = summary(list(evaluate(engine, scenes)))
"""

import argparse
import statistics
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np

from instructsam.core.commands.arguments import count
from instructsam.core.errors import InstructSAMError
from instructsam.core.rle import Rle
from instructsam.train.evaluation import metrics
from instructsam.train.evaluation.report import percent
from instructsam.train.tabletop.command import add_scene_arguments, check_drawing

LOWEST_SCORE = 0.05  # of what takes part in AP
PHRASES = ('generated', 'given', 'dummy')
DUMMY = 'object'


@dataclass(frozen=True, eq=False)
class Question:
    """An instruction (tabletop.instructions.Instruction) with the masks of all objects that it means."""

    instruction: object
    truth: tuple[Rle, ...]


@dataclass(frozen=True, eq=False)
class Drawn:
    """A scene's picture, [H, W, 3] uint8 RGB, and what is asked about it."""

    image: np.ndarray
    questions: tuple[Question, ...]


@dataclass(frozen=True, eq=False)
class Answer:
    """How a model did on one instruction. right: its phrases are the true ones, 0 or 1, nan where they were given."""

    instruction: object
    compared: metrics.Compared
    right: float
    latency_ms: float  # of `segment` alone: the image is encoded


def draw(index, split, seed):
    """The scene number `index` of `split` under `seed`, ready to be asked about."""
    import cv2

    from instructsam.train.tabletop.instructions import instructions
    from instructsam.train.tabletop.scene import scene

    cv2.setNumThreads(1)  # the cores are the model's
    made = scene(split, index, seed)
    masks = {item.id: Rle.encode(made.ids == item.id) for item in made.objects}
    return Drawn(made.rgb, tuple(
        Question(one, tuple(masks[i] for targets in one.targets for i in targets)) for one in instructions(made)
    ))  # fmt: skip


def evaluate(
    engine, scenes, *, threshold=0.5, phrase='generated', own_queries=False, kinds=None, lowest=LOWEST_SCORE,
    max_new_tokens=256,
):
    """Asks `engine` everything about `scenes` (Drawn); yields an Answer an instruction.

    threshold: instances above it are the answer, those above `lowest` take part in AP. phrase: 'generated' by the
    model, or a forced answer: the true phrases ('given') or DUMMY for each ('dummy'). own_queries: the phrase prompts
    SAM3, which answers with learned queries of its own. kinds: the kinds to ask, all by default.
    """
    if own_queries:
        from instructsam.train.concepts import ConceptEngine

        engine = ConceptEngine.of(engine)
    for scene in scenes:
        questions = [one for one in scene.questions if not kinds or one.instruction.kind in kinds]
        frame = engine.encode(scene.image) if questions else None
        for question in questions:
            said = question.instruction
            named = {'generated': (), 'dummy': (DUMMY,) * len(said.phrases)}.get(phrase, said.phrases)
            answer = engine.answer_for(named) if named else None
            start = time.perf_counter()
            result = engine.segment(
                frame, said.text, score_threshold=min(lowest, threshold), answer=answer, max_new_tokens=max_new_tokens
            )
            latency_ms = (time.perf_counter() - start) * 1e3
            masks = [instance.mask for instance in result.instances]
            scores = [instance.score for instance in result.instances]
            compared = metrics.compare(masks, scores, question.truth, threshold)
            right = np.nan if named else float(result.phrases == said.phrases)
            yield Answer(said, compared, right, latency_ms)


def summary(answers):
    """Figures of `answers`: of all, by number of targets, by kind, and by what is new in `unseen` (one may be in more).

    In percent, but for queries (a number) and latency_ms; None where there is nothing to measure. Nothing found where
    nothing is has an IoU of 1, as on Inst2Seg.
    """
    kinds = sorted({one.instruction.kind for one in answers})
    new = sorted({what for one in answers for what in one.instruction.novel})
    groups = {
        'by_targets': {n: [one for one in answers if one.compared.number == n] for n in metrics.NUMBERS},
        'by_kind': {kind: [one for one in answers if one.instruction.kind == kind] for kind in kinds},
        'by_novelty': {what: [one for one in answers if what in one.instruction.novel] for what in new},
    }
    return {'all': _figures(answers)} | {
        group: {name: _figures(some) for name, some in members.items() if some}
        for group, members in groups.items()
        if any(members.values())
    }


def _figures(answers):
    shares = metrics.figures([one.compared for one in answers])
    shares['answer_accuracy'] = float(np.mean([one.right for one in answers]))
    latency_ms = round(statistics.median(one.latency_ms for one in answers), 2)
    return {'queries': len(answers), **percent(shares), 'latency_ms': latency_ms}


def add_arguments(parser):
    add_scene_arguments(parser, split='test', scenes=100)
    parser.add_argument('--kinds', type=kind, nargs='+', metavar='KIND', help='only instructions of these kinds')
    parser.add_argument(
        '--phrase', choices=PHRASES, default='generated',
        help=f'of the answer: generated by the model, given (the true one) or dummy ({DUMMY!r}) (default: generated)',
    )  # fmt: skip
    parser.add_argument(
        '--own-queries', action='store_true',
        help="concept prompting: the phrase prompts SAM3's own queries, which learn in the base stage",
    )  # fmt: skip
    parser.add_argument('--workers', type=count, default=1, metavar='N', help='processes that draw (default: 1)')


def kind(value):
    """A kind of instruction."""
    from instructsam.train.tabletop.instructions import KINDS

    if value not in (*KINDS, 'none'):
        raise argparse.ArgumentTypeError(f'no kind {ascii(value)}. There are {", ".join(KINDS)}, none')
    return value


def check(args):
    """Raises where no scene can be drawn."""
    check_drawing()


def measure(engine, args):
    """The summary of what `args` ask for; draws in other processes meanwhile and shows how far it is."""
    from rich.console import Console
    from rich.progress import track

    from instructsam.train.tabletop.workers import in_order

    with closing(in_order(partial(draw, split=args.split, seed=args.seed), range(args.scenes), args.workers)) as drawn:
        shown = track(
            drawn, f'{args.split} scenes', total=args.scenes, console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )  # fmt: skip
        answers = list(evaluate(
            engine, shown, threshold=args.threshold, phrase=args.phrase, own_queries=args.own_queries,
            kinds=args.kinds, max_new_tokens=args.max_new_tokens,
        ))  # fmt: skip
    if not answers:
        raise InstructSAMError(f'{args.scenes} scenes had no instruction of these kinds. Draw more with --scenes.')
    return summary(answers)
