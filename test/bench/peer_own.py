"""This project's side of bench_peer.py: a process that answers and trains, and writes the inputs for the peer."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
from workers import serve_methods, timed

from instructsam.core import InstructSAM, builtin  # before torch, so that its settings of threads count

import torch  # isort: skip
from bench_training import random_samples

from instructsam.core.benchmark.machine import facts, products
from instructsam.core.benchmark.measure import count_operations, measure
from instructsam.core.benchmark.stages import Stage
from instructsam.core.model.preprocess import example_image, sam_pixels, to_chw
from instructsam.core.model.sequence import TokenSequence
from instructsam.train.loop.param_groups import parameter_groups
from instructsam.train.loop.recipe import LearningRates, Recipe
from instructsam.train.loop.run import start_model
from instructsam.train.losses.objective import Objective
from instructsam.train.stages.instruct import InstructStage
from instructsam.train.stages.settings import InstructSettings

CPU = torch.device('cpu')
SIZE = 480, 640
INSTRUCTIONS = ('the mugs left of the kettle', 'the largest of the red mugs')
PHRASE = 'red mug on the left of the kettle'  # cut to WORDS tokens
WORDS = 6  # with the phrase's tags and the end of the answer, nine tokens
NO_MASKS = 1.0  # score threshold above which none is made in full size
SAMPLES, PHRASES = 2, 6
RATE = 1e-6  # learning rate, so low that the losses of all steps can be compared


class Answers:
    """The engine, with answers whose tokens are forced one by one."""

    def __init__(self, folder: str, model: str, dtype: str):
        """Load the model, and write the inputs for the peer to `folder`."""
        self.folder, self.image = Path(folder), example_image(*SIZE)
        self.engine = engine = InstructSAM.from_pretrained(model, CPU, dtype, 'reference', compile='off')
        tokens, prompter = engine.model.config.tokens, engine.prompter
        self.phrase = [tokens.phrase_start, *prompter.plain_ids(PHRASE)[:WORDS], tokens.phrase_end]
        self.answer = [*self.phrase, min(engine.stop_ids)]
        chw = to_chw(self.image)
        patches, grid = engine.preprocessor(chw, CPU, engine.model.dtype)
        merged = grid[1] * grid[2] // engine.model.config.vision.spatial_merge_size**2
        ids = [*prompter.before_image, *[tokens.image] * merged, *prompter.after_image]
        ids += prompter.instruction_ids(INSTRUCTIONS[0])
        inputs = {
            'input_ids': torch.tensor([ids]),
            'attention_mask': torch.ones(1, len(ids), dtype=torch.int64),
            'pixel_values': patches,
            'image_grid_thw': torch.tensor([grid]),
            'sam_images': sam_pixels(chw, engine.model.config.image_size, CPU, engine.model.dtype),
        }
        torch.save((inputs, self.answer, SIZE), self.folder / 'inputs.pt')

    def check(self) -> dict[str, Any]:
        """Write scores and masks of the first instruction; return the operations of a new frame, and facts."""
        found: list[Any] = []
        with torch.inference_mode():
            operations = count_operations(Stage('frame', lambda _: found.append(self._segment(threshold=0.0))))
        count = self.engine.model.config.num_queries
        scores, masks = np.zeros(count), np.zeros((count, *SIZE), bool)
        for instance in found[0].instances:  # a slot without one has an empty mask
            scores[instance.slot], masks[instance.slot] = instance.score, instance.mask.decode()
        np.savez(self.folder / 'own.npz', scores=scores, masks=masks)
        parameters = sum(parameter.numel() for parameter in self.engine.model.parameters())
        return {'operations': operations, 'parameters': parameters, **facts(CPU)}

    def run(self) -> list[float]:
        """Return the seconds of a new frame, another instruction on it and one whose phrase is given, and the peak."""
        frame, _ = timed(self._segment)
        encoded, other = self._encoded, INSTRUCTIONS[1]
        decoded, _ = timed(lambda: self._segment(other, encoded))
        given, _ = timed(lambda: self.engine.segment(encoded, other, answer=self.phrase, score_threshold=NO_MASKS))
        return [frame, decoded, given, self._peak()]

    @torch.inference_mode()
    def _peak(self) -> float:
        """Return the rate of the fastest matrix product now, in operations per second of the processor."""
        stages = products(CPU, self.engine.model.dtype)
        times = measure(list(stages), CPU, 0.0)
        return max(count / min(each.cpu_s for each in times[stage.name]) for stage, count in stages.items())

    def _segment(self, instruction: str = INSTRUCTIONS[0], encoded: Any = None, threshold: float = NO_MASKS) -> Any:
        """Decode the forced answer token by token, on a new frame unless one is given."""
        pick, answer = TokenSequence.pick, self.answer

        def forced(sequence: TokenSequence, output: Any) -> Any:
            _, score = pick(sequence, output).read()
            return SimpleNamespace(read=lambda: (answer[len(sequence.answer_ids)], score))

        self._encoded = encoded or self.engine.encode(self.image)
        with patch.object(TokenSequence, 'pick', forced):
            return self.engine.segment(self._encoded, instruction, score_threshold=threshold, suppress_duplicates=False)


class Training:
    """Stage instruct, with the loss of the peer's code."""

    def __init__(self, folder: str, model: str, _: str):
        """Start from the model, and write the batch for the peer to `folder`."""
        source = builtin.folder(model)
        # The peer's code multiplies the mask terms by their weights twice, and its presence target is soft.
        objective = Objective(bce_loss=4.0, dice_loss=0.25, presence_target='soft_dice')
        recipe = Recipe(
            'instruct',
            model,
            '',
            ({},),
            instruct=InstructSettings(objective),
            learning_rates=LearningRates(RATE, RATE, RATE, RATE),
            phrases_per_call=SAMPLES * PHRASES,
        )
        stage = InstructStage(recipe, start_model(recipe, source), source)
        self.batch = stage.collator()(random_samples(SAMPLES, PHRASES, np.random.default_rng(0)))
        self.training = stage.module()
        groups = parameter_groups(self.training, recipe.learning_rates, 0.0)
        self.optimizer = torch.optim.AdamW(groups, fused=True)  # as StageTrainer makes it
        self.clip_norm = recipe.clip_norm
        self._write(Path(folder) / 'batch.pt', stage.model.config.tokens.phrase_start)

    def run(self) -> list[Any]:
        """Return the seconds of a step, and its losses by name."""

        def step() -> dict[str, float]:
            counts = self.batch.counts()
            losses = {name: term.value / counts[term.unit] for name, term in self.training(self.batch).items()}
            sum(losses.values(), torch.zeros(())).backward()
            torch.nn.utils.clip_grad_norm_(self.training.parameters(), self.clip_norm)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            return {name: float(loss.detach()) for name, loss in losses.items()}

        return list(timed(step))

    def _write(self, path: Path, phrase_start: int) -> None:
        batch, text = self.batch, self.batch.text
        of_sample = [[index for index, (row, _) in enumerate(text.blocks) if row == each] for each in range(SAMPLES)]
        ends = [np.cumsum([0, *(len(batch.masks[index]) for index in indices)]).tolist() for indices in of_sample]
        inputs = {
            'input_ids': text.ids,
            'attention_mask': text.mask[:, 0, -1],  # the last row sees all tokens of its sample, but no padding
            'labels': text.labels,
            'position_ids': text.positions,
            'pixel_values': batch.patches,
            'image_grid_thw': torch.tensor(batch.grids),
            'sam_images': list(batch.pixels),
            'masks': [torch.cat([batch.masks[index] for index in each])[:, None].byte() for each in of_sample],
            'mask_ids': [[list(range(*each)) for each in pairwise(sample)] for sample in ends],
            'masks_valid': [True] * SAMPLES,
            'mask_type': [0] * SAMPLES,  # masks, not boxes
            'phrase_ids': [
                [i for index in each for i in (phrase_start, *text.phrase_ids[index])] for each in of_sample
            ],
        }
        torch.save((inputs, RATE), path)


if __name__ == '__main__':
    torch.set_num_threads(1)
    serve_methods({'answers': Answers, 'training': Training}, sys.argv[1:])
