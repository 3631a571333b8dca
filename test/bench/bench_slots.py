"""Cost of instance slots: the built-in model with K = 4, 10 and 50, in turn on one image with a given phrase.

    python test/bench/bench_slots.py [--rounds 200] [--model tabletop] [--device auto]

Prints the time of a segment call as a multiple of that with K = 10, the median over rounds (encoding the image does not
depend on K). The paper reports 1.1 s with K = 10, 1.4 s with 50 and 2.1 s with 200, encoding included (2B, section 4).
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from instructsam.core import InstructSAM, builtin
from instructsam.train.weights.resize_bank import resize_bank

SLOTS, REFERENCE = (4, 10, 50), 10
PHRASE, SIZE = 'red mug', (224, 224, 3)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=200)
    parser.add_argument('--model', default='tabletop')
    parser.add_argument('--device', default='auto')
    arguments = parser.parse_args()
    image = np.random.default_rng(0).integers(0, 256, SIZE, dtype=np.uint8)
    engines, times_s = {}, {slots: [] for slots in SLOTS}
    with tempfile.TemporaryDirectory() as folder:
        for slots in SLOTS:
            resize_bank(builtin.folder(arguments.model), Path(folder) / str(slots), slots)
            engine = InstructSAM.from_pretrained(Path(folder) / str(slots), device=arguments.device)
            engines[slots] = engine, engine.encode(image), engine.answer_for([PHRASE])
    for _ in range(arguments.rounds):
        for slots, (engine, image_encoding, answer) in engines.items():
            start = time.perf_counter()
            engine.segment(image_encoding, PHRASE, answer=answer)
            times_s[slots].append(time.perf_counter() - start)
    for slots, values in times_s.items():
        ratios = [value / reference for value, reference in zip(values, times_s[REFERENCE], strict=True)]
        ratio, median_ms = statistics.median(ratios), 1e3 * statistics.median(values)
        print(f'K = {slots}: {ratio:.2f} x K = {REFERENCE}, {median_ms:.1f} ms')


if __name__ == '__main__':
    main()
