"""Measure a round of the agent against one pass of InstructSAM, on the same backbone with random weights.

    python test/bench/bench_agent.py [--divisor 4] [--round-tokens 200] [--device cpu] [--dtype float32]

A pass is one instruction on a new image: both image encoders, prefill, `--pass-tokens` decoded tokens, the detector and
the masks of one phrase. A round is one reply of the agent, on a server that keeps nothing between requests: the vision
tower on `--round-images` images, prefill of them and of `--prompt-tokens` tokens of text, `--round-tokens` decoded
tokens, and the detector and the masks of one phrase. SAM3's encoder runs once per image in both systems, and so is no
part of a round.

The result is the ratio of a round to a pass, and the number of seconds for r rounds is r times a round. It is not the
ratio of the paper's table 10 (26.9): that one depends on a trained model's number of rounds and tokens. Layers and
vocabulary of the published size are divided by `--divisor`, widths stay; 1 is the published size (2.62 B parameters).
On a CPU, times are processor times of one thread, because other programs may use the cores.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'support'))

from full_size import scaled_config
from sample_models import random_model

from instructsam.core import InstructSAM, builtin
from instructsam.core.model.preprocess import QwenPreprocessor, sam_pixels, to_chw
from instructsam.core.model.sequence import encode_prefix
from instructsam.core.model.tokenizer import load_prompter
from instructsam.core.step_timer import StepTimer

PHRASE, INSTRUCTION = 'red mug', 'the red mug left of the kettle'
WORD = 40  # any token of the small model's tokenizer


def build_engine(divisor, device, dtype):
    config = scaled_config(divisor, divides_vocabulary=True)
    model = random_model(config, dtype=getattr(torch, dtype)).to(device).eval()
    prompter, stop_ids = load_prompter(builtin.MODELS['tabletop'], config)
    preprocessor = QwenPreprocessor(min_pixels=65536, max_pixels=16777216)
    return InstructSAM(model, prompter, preprocessor, stop_ids)


class Bench:
    """The two systems on one engine, with the time of each part."""

    def __init__(self, engine, image, arguments):
        self.engine, self.image, self.arguments = engine, image, arguments
        self.seconds = {}

    def now(self):
        if self.engine.device.type == 'cuda':
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def timed(self, name, function):
        start = self.now()
        result = function()
        self.seconds[name] = self.now() - start
        return result

    def run_pass(self):
        """Answer one instruction on a new image; the answer has so many tokens, and names one phrase."""
        engine = self.engine
        encoded = self.timed('pass: image encoders and prefill of the image', lambda: engine.encode(self.image))
        sequence = engine._new_sequence(encoded.prefix)
        output = self.timed(
            'pass: prefill of the text', lambda: sequence.add_text(engine.prompter.instruction_ids(INSTRUCTION))
        )
        phrase = engine.answer_for([PHRASE])
        self.timed(
            'pass: decoding',
            lambda: self.decode(sequence, output, [WORD] * max(0, self.arguments.pass_tokens - len(phrase)) + phrase),
        )
        self.timed('pass: detector and masks', lambda: self.detect(encoded, sequence))
        return encoded, sequence

    def run_round(self, encoded, answered):
        """Read the messages of a round and reply; then segment a phrase on the encoded image."""
        engine, model, arguments = self.engine, self.engine.model, self.arguments

        def see():
            chw = to_chw(self.image)
            pixels = sam_pixels(chw, model.config.image_size, model.device, model.dtype)
            patches, grid = engine.preprocessor(chw, model.device, model.dtype)
            inputs = model.encoder_inputs(pixels, patches, [grid])
            return [model.encode_image(inputs.patches, *inputs.grids) for _ in range(arguments.round_images)], grid

        visuals, grid = self.timed('round: vision tower', see)
        tokens_per_image = grid[1] * grid[2] // model.config.vision.spatial_merge_size**2
        text_tokens = arguments.prompt_tokens + (arguments.round_images - 1) * tokens_per_image

        def read():
            prefix, _ = encode_prefix(model, engine.prompter, engine.mode, visuals[0], grid)
            sequence = engine._new_sequence(prefix)
            return sequence, sequence.add_text([WORD] * text_tokens)

        sequence, output = self.timed('round: prefill', read)
        self.timed('round: decoding', lambda: self.decode(sequence, output, [WORD] * arguments.round_tokens))
        self.timed('round: detector and masks', lambda: self.detect(encoded, answered))
        return tokens_per_image

    def decode(self, sequence, output, ids):
        for token in ids:
            self.engine.model.token_logits(output.hidden[:, -1])[0].argmax().item()
            output = sequence.add_answer([token])

    def detect(self, encoded, sequence):
        timer = StepTimer(self.engine.device, None)
        detected = self.engine._detect(encoded.features, sequence.groups, timer)
        return self.engine.instances(detected, [PHRASE], encoded, 0.0, timer)


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--divisor', type=int, default=4, help='of layers and vocabulary; 1: the published size')
    parser.add_argument('--size', type=int, nargs=2, default=(480, 640), metavar=('H', 'W'), help='of the image, px')
    parser.add_argument('--pass-tokens', type=int, default=12, help='tokens of the answer of one pass')
    parser.add_argument('--round-tokens', type=int, default=200, help='tokens of a reply of the agent')
    parser.add_argument('--prompt-tokens', type=int, default=900, help='tokens of text before a reply')
    parser.add_argument('--round-images', type=int, default=2, help='images before a reply')
    parser.add_argument('--repeats', type=int, default=2, help='runs of each; the fastest counts')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--dtype', default='float32', choices=('float32', 'bfloat16'))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    engine = build_engine(arguments.divisor, arguments.device, arguments.dtype)
    image = np.random.default_rng(0).integers(0, 256, (*arguments.size, 3), dtype=np.uint8)
    best = {}
    for _ in range(arguments.repeats + (arguments.device != 'cpu')):  # a GPU loads kernels on their first use
        bench = Bench(engine, image, arguments)
        tokens_per_image = bench.run_round(*bench.run_pass())
        for name, seconds in bench.seconds.items():
            best[name] = min(seconds, best.get(name, seconds))
    parameters = sum(parameter.numel() for parameter in engine.model.parameters())
    sums = {
        system: sum(seconds for name, seconds in best.items() if name.startswith(system))
        for system in ('pass', 'round')
    }
    print(f'{parameters / 1e9:.2f} B parameters (random), {arguments.dtype} on {arguments.device}, image '
          f'{arguments.size[1]}x{arguments.size[0]}, {tokens_per_image} tokens per image')  # fmt: skip
    for name, seconds in best.items():
        print(f'{seconds:8.3f} s  {name}')
    print(f'a pass of {arguments.pass_tokens} tokens: {sums["pass"]:.3f} s')
    print(
        f'a round of {arguments.round_tokens} tokens after {arguments.prompt_tokens} tokens and '
        f'{arguments.round_images} images: {sums["round"]:.3f} s, {sums["round"] / sums["pass"]:.2f} of a pass'
    )


if __name__ == '__main__':
    main()
