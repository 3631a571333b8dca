"""The noise that each rule of the data engine's filter catches, with a SIMULATED annotator over the tabletop world.

    python test/bench/bench_filter.py [--scenes 120] [--noise 0 0.1 0.2 0.4] [--out FILE]

Scenes of the split `test` are annotated over HTTP by the simulated annotator, once per rate of noise; masks are those
of the simulated box-to-mask model. Every rule judges every question, and the checks of other models are made for every
question, so that the rules can be compared. Questions, objects, boxes and masks are known exactly, so:

- a question is good if its masks and the true ones match one to one at an IoU of 0.5 and its phrase is the true one;
- recall: share of the bad questions that are rejected; precision: share of the rejected questions that are bad.

The second opinion is the built-in model's (a real one, and weak); the round trip and the exhaustivity check come from
the simulated annotator, which errs at the stated rates.
"""

import argparse
import asyncio
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from instructsam.core.engine import InstructSAM
from instructsam.train.data_engine.asking import Costs
from instructsam.train.data_engine.filters.rules import RULES, judge
from instructsam.train.data_engine.filters.thresholds import Thresholds
from instructsam.train.data_engine.simulated.annotator import CheckErrors, SimulatedAnnotator
from instructsam.train.data_engine.simulated.noise import FAULTS, Noise
from instructsam.train.data_engine.simulated.rows import is_good, segmented_row
from instructsam.train.data_engine.simulated.server import MODEL, serving
from instructsam.train.data_engine.simulated.world import Gallery, draw_known_scene
from instructsam.train.data_engine.verify import EngineFinder, exhaustivity, round_trip, second_opinion
from instructsam.train.engines.concept import ConceptEngine
from instructsam.train.vlm.client import VlmClient
from instructsam.train.vlm.settings import VlmSettings

SPLIT, SEED = 'test', 31
FAMILIES = {
    'text': ('text.',),
    'counts': ('counts.',),
    'boxes': ('boxes.',),
    'masks': ('masks.',),
    'opinion': ('opinions.elsewhere', 'opinions.uncovered', 'opinions.as_many'),
    'round trip': ('opinions.round_trip',),
    'exhaustivity': ('opinions.not_all',),
}
FILTERS = {
    'rules on the row': ('text', 'counts', 'boxes', 'masks'),
    '+ second opinion': ('text', 'counts', 'boxes', 'masks', 'opinion'),
    '+ round trip': ('text', 'counts', 'boxes', 'masks', 'round trip'),
    '+ round trip, exhaustivity': ('text', 'counts', 'boxes', 'masks', 'round trip', 'exhaustivity'),
    'all': tuple(FAMILIES),
}


@dataclass(frozen=True)
class Sample:
    """One question: the rules that reject it, its fault ('' none, 'shared' that of another question), and the truth."""

    fault: str
    is_good: bool
    broken: frozenset[str]

    def families(self):
        return {name for name, rules in FAMILIES.items() if any(each.startswith(rules) for each in self.broken)}


class CachedFinder(EngineFinder):
    """Remembers what the model finds: it is asked about the same pictures at every rate of noise."""

    known = {}  # noqa: RUF012  # one per process

    def encode(self, image):
        return image

    def find(self, encoded, phrase):
        key = encoded.tobytes()
        if key not in self.known:
            self.known[key] = (super().encode(encoded), {})
        features, found = self.known[key]
        if phrase not in found:
            found[phrase] = super().find(features, phrase)
        return found[phrase]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--scenes', type=int, default=120)
    parser.add_argument('--noise', type=float, nargs='+', default=[0.0, 0.1, 0.2, 0.4])
    parser.add_argument('--errors', type=float, default=0.1, help='rate of the mistakes of each check')
    parser.add_argument('--out', type=Path, help='write the tables here, too')
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    scenes = []
    for index in range(arguments.scenes):
        scenes.append(draw_known_scene(index, SPLIT, SEED))
        if sys.stderr.isatty():
            print(f'\r{index + 1} scenes', end='', file=sys.stderr, flush=True)
    finder = CachedFinder(ConceptEngine.from_engine(InstructSAM.from_pretrained('tabletop', device='cpu')))
    errors = CheckErrors(arguments.errors, arguments.errors)
    found = {}
    for rate in arguments.noise:
        annotator = SimulatedAnnotator(Gallery(scenes), Noise.uniform(rate), errors)
        found[rate] = annotated_samples(annotator, scenes, finder)
        print(f'noise {rate:.0%}: {len(found[rate])} questions', file=sys.stderr, flush=True)
    noisy = [each for rate, samples in found.items() if rate for each in samples]
    tables = [sweep(found), by_fault(noisy), by_rule(noisy)]
    text = '\n\n'.join('\n'.join(table) for table in tables) + '\n'
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


def annotated_samples(annotator, scenes, finder):
    """Return the samples of all scenes."""

    async def run(url):
        client = VlmClient(VlmSettings(url, MODEL, retries=0))
        try:
            rows = [await finished_row(scene, annotator, client, finder) for scene in scenes]
        finally:
            await client.aclose()
        return [each for scene, row in zip(scenes, rows, strict=True) for each in samples_of(scene, row, annotator)]

    with serving(annotator) as url:
        return asyncio.run(run(url))


async def finished_row(scene, annotator, client, finder):
    """Return the row of a scene with all evidence and the rejections of all rules."""
    row = await segmented_row(scene, client, annotator)
    # An answer without an object is a rejection of its stage already; the rule on it shall be counted as well.
    row = replace(row, rejections=tuple(each for each in row.rejections if each.rule != 'objects.no_target'))
    row = second_opinion(row, scene.image, finder)
    row = await round_trip(row, scene.image, client, Costs())
    row = await exhaustivity(row, scene.image, client, Costs())
    return judge(row, Thresholds(), RULES)


def samples_of(scene, row, annotator):
    """Return a sample per question of a row."""
    annotation = annotator.annotation(scene)
    faults = {each.text: fault for each, fault in zip(annotation.questions, annotation.faults, strict=True)}
    broken = defaultdict(set)
    for each in row.rejections:
        broken[each.question_id].add(each.rule)
    samples = []
    for question in row.questions:
        fault = faults[question.text]
        if not fault and not is_good(scene, row, question, least_iou=0.95):
            fault = 'shared'
        samples.append(Sample(fault, is_good(scene, row, question), frozenset(broken[question.id])))
    return samples


def share(part, whole):
    return f'{100 * part / whole:.0f}' if whole else '-'


def sweep(found):
    """Return the lines of the table of filters by rate of noise."""
    lines = [
        '| noise | filter | questions | bad, % | kept, % | bad among the kept, % | recall | precision |',
        '|---|---|---|---|---|---|---|---|',
    ]
    for rate, samples in found.items():
        bad = sum(not each.is_good for each in samples)
        for name, families in FILTERS.items():
            rejected = [each for each in samples if each.families() & set(families)]
            caught = sum(not each.is_good for each in rejected)
            kept = len(samples) - len(rejected)
            cells = [f'{rate:.0%}', name, len(samples), share(bad, len(samples)), share(kept, len(samples))]
            cells += [share(bad - caught, kept), share(caught, bad), share(caught, len(rejected))]
            lines.append(f'| {" | ".join(map(str, cells))} |')
    return lines


def by_fault(samples):
    """Return the lines of the table of families of rules by kind of fault."""
    lines = [
        f'| fault | questions | bad, % | {" | ".join(FAMILIES)} | any |',
        f'|---|---|---|{"---|" * (len(FAMILIES) + 1)}',
    ]
    for fault in (*FAULTS, 'shared', ''):
        struck = [each for each in samples if each.fault == fault]
        if struck:
            bad = sum(not each.is_good for each in struck)
            caught = [share(sum(name in each.families() for each in struck), len(struck)) for name in FAMILIES]
            name = {'shared': 'of an object of another question', '': 'none'}.get(fault, f'`{fault}`')
            cells = [name, len(struck), share(bad, len(struck)), *caught]
            cells.append(share(sum(bool(each.broken) for each in struck), len(struck)))
            lines.append(f'| {" | ".join(map(str, cells))} |')
    return lines


def by_rule(samples):
    """Return the lines of the table of rules."""
    lines = [
        '| rule | rejected | precision | recall | rejected by it alone |',
        '|---|---|---|---|---|',
    ]
    bad = sum(not each.is_good for each in samples)
    rejected = Counter(rule for each in samples for rule in each.broken)
    for rule in RULES:
        struck = [each for each in samples if rule in each.broken]
        caught = sum(not each.is_good for each in struck)
        alone = sum(len(each.broken) == 1 for each in struck)
        if rejected[rule]:
            lines.append(
                f'| `{rule}` | {len(struck)} | {share(caught, len(struck))} | {share(caught, bad)} | {alone} |'
            )
    silent = [f'`{rule}`' for rule in RULES if not rejected[rule]]
    return [*lines, '', f'Never struck here: {", ".join(silent)}.'] if silent else lines


if __name__ == '__main__':
    np.seterr(all='raise', under='ignore')
    main()
