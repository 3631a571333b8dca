"""Table of the benchmarks: prompts, thresholds and figures of each. Every value can be changed on the command line.

Prompts, thresholds and metrics are those of the authors' evaluation; `paper` holds the figures that the paper reports
for InstructSAM-2B (arXiv 2605.26102), in percent.
"""

from dataclasses import dataclass, field

SUFFIX = ' Please output the segmentation mask.'
CAN_YOU = "Can you segment '{text}' in the image?"
PHRASE_SOURCES = ('generated', 'given', 'dummy')
"""Sources of the answer's phrases: the model, the ground truth, or `modes.DUMMY_PHRASE` for each of its phrases."""


@dataclass(frozen=True)
class Benchmark:
    """One row of the table. File layouts and readers are in `readers`."""

    summary: str
    splits: tuple[str, ...]
    prompts: dict[str, str]  # form -> template; {text} is the text, {lowered} the same with a lowercase first letter
    threshold: float  # instances that score above it are the answer
    empty: int  # IoU of a query with neither a target nor a prediction
    headline: tuple[str, ...]  # figures that the paper reports
    lowest: float | None = None  # instances that score above it take part in AP; None: the threshold, as the authors do
    suppress_duplicates: bool = False  # False: all instances are kept, as the authors do
    # The paper's results in percent, by split or split/group and by figure.
    paper: dict[str, dict[str, float]] = field(default_factory=dict)


BENCHMARKS = {
    'roborefit': Benchmark(
        "a robot's commands in cluttered rooms, one object each", ('testA', 'testB', 'train'),
        {'': '{text}' + SUFFIX}, threshold=0.5, empty=0, headline=('gIoU',),
        paper={'testA': {'gIoU': 82.5}, 'testB': {'gIoU': 74.4}},
    ),
    'inst2seg': Benchmark(
        'instructions with no, one or several targets', ('test',), {'': '{text}' + SUFFIX}, threshold=0.3, empty=1,
        headline=('mAP', 'gIoU'),
        paper={'test': {'mAP': 31.5, 'gIoU': 60.4}, 'test/targets 1': {'mAP': 52.6, 'gIoU': 66.8},
               'test/targets 2+': {'mAP': 22.2, 'gIoU': 44.0}, 'test/targets 0': {'gIoU': 74.3}},
    ),
    'grefcoco': Benchmark(
        'referring expressions for no, one or several objects', ('val', 'testA', 'testB', 'train'), {'': CAN_YOU},
        threshold=0.3, empty=1, headline=('mAP', 'cIoU', 'no_target_accuracy'),
        paper={'val': {'mAP': 57.3, 'cIoU': 68.3}, 'testA': {'mAP': 51.9, 'cIoU': 72.3},
               'testB': {'mAP': 43.5, 'cIoU': 65.2}},
    ),
    'refcoco': Benchmark(
        'RefCOCO, RefCOCO+ and RefCOCOg: referring expressions for one object',
        ('val', 'testA', 'testB', 'test', 'train'), {'': CAN_YOU}, threshold=0.3, empty=1,
        headline=('cIoU', 'gIoU', 'mAP'),
    ),
    'reasonseg': Benchmark(
        'questions that need reasoning, one mask each', ('val', 'test', 'train'),
        {'long': '{text}' + SUFFIX, 'short': "Please segment the '{lowered}' in the image."}, threshold=0.3, empty=0,
        headline=('gIoU', 'cIoU'),
        paper={'val': {'gIoU': 62.5, 'cIoU': 65.0}, 'test': {'gIoU': 61.1, 'cIoU': 61.0},
               'test/form short': {'gIoU': 56.0, 'cIoU': 51.1}, 'test/form long': {'gIoU': 62.7, 'cIoU': 63.3}},
    ),
    'gseval': Benchmark(
        'captions of stuff, parts, several and single objects', ('eval',), {'': '{text}'}, threshold=0.3, empty=0,
        headline=('gIoU',),
        paper={'eval': {'gIoU': 64.1}, 'eval/class stuff': {'gIoU': 89.4}, 'eval/class part': {'gIoU': 22.4},
               'eval/class multi': {'gIoU': 73.6}, 'eval/class single': {'gIoU': 54.8}},
    ),
    'tabletop': Benchmark(
        'instructions about rendered tables, drawn for a seed', ('test', 'unseen', 'val', 'train'), {'': '{text}'},
        threshold=0.5, empty=1, headline=('mAP', 'gIoU', 'no_target_accuracy'), lowest=0.05, suppress_duplicates=True,
    ),
    'real': Benchmark(
        'instructions about photographs of household objects, composed for a seed', ('known', 'other'),
        {'': '{text}'}, threshold=0.5, empty=1, headline=('recall', 'mAP', 'gIoU', 'no_target_accuracy'), lowest=0.05,
        suppress_duplicates=True,
    ),
}  # fmt: skip


def fill_prompt(template: str, text: str) -> str:
    """Return the template with the text put in; what follows {text} is left out if the text already ends with it."""
    head, _, tail = template.partition('{text}')
    if tail.strip() and text.endswith(tail.strip()):
        template = head + '{text}'
    return template.replace('{lowered}', text[:1].lower() + text[1:]).replace('{text}', text)
