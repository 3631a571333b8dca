"""Compare the masks and scores of a lower precision with those of float32, on the same weights.

    python test/bench/bench_precision.py [--dtype bfloat16] [--device cpu]

The weights are random and of the published size: 11 GB in float32. Their mask logits lie close to 0, so that more
pixels change sides than with trained weights. The answer is given, so that both precisions segment the same phrase.
"""

import argparse

from instructsam.core.benchmark.random_weights import builtin_tokens, published_config, random_engine
from instructsam.core.model.preprocess import example_image

INSTRUCTION, PHRASE = 'the mugs left of the kettle', 'red mug'


def slots_of(device, dtype):
    """Return the mask logits [K, h, w] and scores [K] of all slots."""
    import torch  # after instructsam.core, which sets how its threads wait

    engine = random_engine(published_config(builtin_tokens()), torch.device(device), dtype)
    encoded = engine.encode(example_image(480, 640))
    with torch.inference_mode():
        sequence = engine._new_sequence(encoded.prefix)
        sequence.add_answer(engine.answer_for([PHRASE]), engine.prompter.instruction_ids(INSTRUCTION))
        logits, scores = engine.stages.detect(encoded.features, sequence.groups)
    return logits[0].float().cpu(), scores[0].float().cpu()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--dtype', default='bfloat16')
    parser.add_argument('--device', default='cpu')
    args = parser.parse_args()
    exact, exact_scores = slots_of(args.device, 'float32')
    other, other_scores = slots_of(args.device, args.dtype)
    ours, theirs = exact > 0, other > 0
    iou = (ours & theirs).sum((1, 2)) / (ours | theirs).sum((1, 2)).clamp(min=1)
    shares = ours.float().mean((1, 2))
    print(f'masks of {len(iou)} slots, which cover {shares.min():.0%} to {shares.max():.0%} of the image')
    print(f'mask IoU {iou.min():.4f} to {iou.max():.4f}; pixels on the same side {(ours == theirs).float().mean():.4f}')
    print(f'mask logits: standard deviation {exact.std():.4f}, largest difference {(exact - other).abs().max():.4f}')
    print(f'scores: largest difference {(exact_scores - other_scores).abs().max():.5f}')


if __name__ == '__main__':
    main()
