"""Samples as the batch that the forward pass reads: token sequences, both encoders' inputs, masks and boxes."""

from dataclasses import replace

import numpy as np
import torch
from transformers import AutoTokenizer

from instructsam.core.model.preprocess import QwenPreprocessor, sam_pixels
from instructsam.core.model.prompt import Prompter
from instructsam.train.data.dialogue import Dialogue, batch_scripts
from instructsam.train.stages.forward import Batch


class Collator:
    """A DataLoader's `collate_fn`, so that images are prepared in its workers, on the CPU in float32."""

    def __init__(self, dialogue, preprocessor, num_queries, image_size, merge, pad_id, branches=False):
        """preprocessor: core's QwenPreprocessor; num_queries: K; image_size: S, px, of SAM3's input; merge: patches of
        a language-model token, each way; branches: the turns of a sample do not see each other.
        """
        self.dialogue = dialogue
        self.preprocessor = preprocessor
        self.num_queries = num_queries
        self.image_size = image_size
        self.merge = merge
        self.pad_id = pad_id
        self.branches = branches

    @classmethod
    def from_folder(cls, folder, config, branches=False, max_pixels=0, mode='consistent'):
        """For the model folder `folder` of core.config.ModelConfig `config`; max_pixels: of an image in Qwen's encoder,
        where that is less than the folder's (0: the folder's); mode: see Dialogue. Raises ModelError.
        """
        preprocessor = QwenPreprocessor.from_folder(folder)
        if max_pixels:
            preprocessor = replace(preprocessor, max_pixels=min(max_pixels, preprocessor.max_pixels))
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return cls(
            Dialogue(tokenizer, Prompter(tokenizer, config.tokens), mode),
            preprocessor,
            config.num_queries,
            config.sam3.vision_config.backbone_config.image_size,
            config.qwen.vision_config.spatial_merge_size,
            tokenizer.pad_token_id or 0,  # nothing looks at padding
            branches,
        )

    def __call__(self, samples):
        """The forward.Batch of `samples`. Raises RecordError where a sample's image cannot be used."""
        samples = [sample.with_pixels() for sample in samples]
        patches, grids = zip(*(self.preprocessor(s.pixels, 'cpu', torch.float32) for s in samples), strict=True)
        scripts = [self._write(sample, grid) for sample, grid in zip(samples, grids, strict=True)]
        targets = [(sample, target) for sample in samples for turn in sample.turns for target in turn.targets]
        return Batch(
            batch_scripts(scripts, self.pad_id),
            torch.cat(patches),
            list(grids),
            torch.cat([sam_pixels(sample.pixels, self.image_size, 'cpu', torch.float32) for sample in samples]),
            masks=[_decoded(target, sample) for sample, target in targets],
            boxes=[torch.tensor(target.boxes, dtype=torch.float32).reshape(-1, 4) for _, target in targets],
            chosen=_chosen(samples),
        )

    def _write(self, sample, grid):
        rows, columns = grid[1] // self.merge, grid[2] // self.merge
        options = {'branches': True} if self.branches else {}
        return self.dialogue.write(sample, self.num_queries, rows, columns, **options)


def _chosen(samples):
    """The chosen phrases of all samples, counted over the batch."""
    chosen, first = [], 0
    for sample in samples:
        phrases = sum(len(turn.phrases) for turn in sample.turns)
        chosen += [first + index for index in (range(phrases) if sample.chosen is None else sample.chosen)]
        first += phrases
    return chosen


def _decoded(target, sample):
    """[N, H, W] bool."""
    if not target.masks:
        return torch.zeros(0, sample.height, sample.width, dtype=torch.bool)
    return torch.from_numpy(np.stack([mask.decode() for mask in target.masks]))
