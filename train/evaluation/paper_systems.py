"""Rows of the paper for systems other than InstructSAM-2B (arXiv 2605.26102, tables 2 and 10).

Not said in the paper: GPU, server, sampling and round limit of the agent, how its failed runs count, and which scores
rank its masks in AP.
"""

INSTRUCTSAM = 'InstructSAM-2B'

SYSTEMS: dict[str, dict[str, dict[str, dict[str, float]]]] = {
    'inst2seg': {
        'SAM3-Agent, Qwen2.5-VL-3B': {
            'test': {'mAP': 23.2, 'gIoU': 48.7}, 'test/targets 1': {'mAP': 33.9, 'gIoU': 47.6},
            'test/targets 2+': {'mAP': 18.8, 'gIoU': 33.1}, 'test/targets 0': {'gIoU': 86.2},
        },
        'SAM3-Agent, Qwen2.5-VL-7B': {
            'test': {'mAP': 35.7, 'gIoU': 63.2}, 'test/targets 1': {'mAP': 47.8, 'gIoU': 65.1},
            'test/targets 2+': {'mAP': 30.4, 'gIoU': 47.9}, 'test/targets 0': {'gIoU': 90.1},
        },
        'SAM3-Agent, Qwen3-VL-2B': {
            'test': {'mAP': 29.7, 'gIoU': 58.8}, 'test/targets 1': {'mAP': 43.2, 'gIoU': 62.1},
            'test/targets 2+': {'mAP': 24.4, 'gIoU': 43.2}, 'test/targets 0': {'gIoU': 81.3},
        },
    },
    'reasonseg': {
        'SAM3-Agent, Qwen2.5-VL-3B': {
            'val': {'gIoU': 50.3, 'cIoU': 34.1}, 'test': {'gIoU': 49.9, 'cIoU': 46.4},
            'test/form short': {'gIoU': 44.8, 'cIoU': 36.2}, 'test/form long': {'gIoU': 50.0, 'cIoU': 47.5},
        },
        'SAM3-Agent, Qwen2.5-VL-7B': {
            'val': {'gIoU': 62.2, 'cIoU': 49.1}, 'test': {'gIoU': 63.0, 'cIoU': 53.5},
            'test/form short': {'gIoU': 59.4, 'cIoU': 43.5}, 'test/form long': {'gIoU': 64.1, 'cIoU': 56.2},
        },
        'SAM3-Agent, Qwen3-VL-2B': {
            'val': {'gIoU': 58.0, 'cIoU': 44.9}, 'test': {'gIoU': 56.5, 'cIoU': 43.6},
            'test/form short': {'gIoU': 54.1, 'cIoU': 36.1}, 'test/form long': {'gIoU': 57.3, 'cIoU': 45.9},
        },
    },
}  # fmt: skip
"""Benchmark -> system -> split or split/group -> figure in percent (table 2)."""

SECONDS = {'inst2seg': {INSTRUCTSAM: 1.1, 'SAM3-Agent, Qwen3-VL-2B': 29.6}}
"""Benchmark -> system -> mean seconds of an instruction, all on one kind of machine that is not named (table 10)."""


def rows(benchmark: str, split: str, own: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return {system: {figure: value}} of the paper for a split, with `seconds` where they are known.

    Args:
        benchmark: Name of the benchmark.
        split: The split.
        own: The paper's figures of InstructSAM-2B, see benchmarks.Benchmark.paper.
    """
    systems = {INSTRUCTSAM: own, **SYSTEMS.get(benchmark, {})}
    seconds = SECONDS.get(benchmark, {}) if benchmark != 'inst2seg' or split == 'test' else {}
    return {
        system: {**figures[split], **({'seconds': seconds[system]} if system in seconds else {})}
        for system, figures in systems.items()
        if split in figures
    }
