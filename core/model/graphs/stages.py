"""The stages of the network that an engine runs: one operation after the other, or with fixed shapes as CUDA graphs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from instructsam.core.model.graphs.capture import (
    Function,
    Recorder,
    StaticCalls,
    record_calls,
    record_cuda_graph,
    smallest_bucket,
)
from instructsam.core.model.graphs.static_sequence import NewRows, StaticLanguage, StaticSequence
from instructsam.core.model.grounding import PreparedFeatures
from instructsam.core.model.instructsam import EncoderInputs, InstructSAMModel, VisualFeatures
from instructsam.core.model.layers.pixel_decoder import PixelLevel
from instructsam.core.model.layers.vision_tower import GridPlan
from instructsam.core.model.preprocess import Grid
from instructsam.core.model.prompt import Prompter
from instructsam.core.model.sequence import Group, Prefix, PrefixPlan, TokenSequence, encode_prefix, plan_prefix

GROUP_BUCKETS = (1, 2, 4)  # numbers of phrases in a call of the detector
MAX_GRIDS = 4  # image sizes whose recorded passes are kept
CAPACITY = 1024  # rows of the language model's cache, for the prefix, the instruction and its answer


class Stages:
    """The stages of a network, run operation by operation."""

    def __init__(self, model: InstructSAMModel, mode: str):
        """Run `model` in one of `core.modes.MODES`."""
        self.model, self.mode = model, mode

    def image_features(self, inputs: EncoderInputs) -> PreparedFeatures:
        """Run SAM3's image encoder, and the part of the detector that depends on the image only."""
        grounding = self.model.grounding
        return grounding.prepare(grounding.encode(inputs.pixels, inputs.lateral_maps))

    def visual_features(self, inputs: EncoderInputs) -> VisualFeatures:
        """Run Qwen's vision tower."""
        return self.model.encode_image(inputs.patches, *inputs.grids)

    def prefix(self, visual: VisualFeatures, grid: Grid, prompter: Prompter) -> Prefix:
        """Run the language model up to the end of the image."""
        return encode_prefix(self.model, prompter, self.mode, visual, grid)[0]

    def sequence(self, prefix: Prefix) -> TokenSequence:
        """Return a sequence that continues a prefix."""
        return TokenSequence(self.model, prefix)

    def detect(self, features: PreparedFeatures, groups: Sequence[Group]) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the detector on phrases; return mask logits [G, K, h, w] and scores [G, K], 0 to 1."""
        ids, mask = self.model.pad_phrases([group.phrase_ids for group in groups])
        return self._detect(features, torch.stack([group.hidden for group in groups]), ids, mask)

    def _detect(
        self, features: PreparedFeatures, hidden: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        output = self.model.detect(features, hidden, ids, mask, self.mode)
        return output.mask_logits, output.logits.float().sigmoid()


class StaticStages(Stages):
    """The stages with fixed shapes, recorded and replayed. Results are copies, safe from the next replay."""

    def __init__(
        self, model: InstructSAMModel, mode: str, record: Recorder, wrap: Callable[[Function], Function] = lambda f: f
    ):
        """Allocate the buffers.

        Args:
            model: The network.
            mode: One of `core.modes.MODES`.
            record: Records a function, see `capture`.
            wrap: Compiles a function, or returns it as it is.
        """
        super().__init__(model, mode)
        self._lock = threading.Lock()  # guards the buffers
        self._sam = StaticCalls(record, wrap, 1)
        self._tower, self._prefixes = StaticCalls(record, wrap, MAX_GRIDS), StaticCalls(record, wrap, MAX_GRIDS)
        self._detector = StaticCalls(record, wrap, len(GROUP_BUCKETS))
        self._language = StaticLanguage(model, mode, CAPACITY, record, wrap)

    def image_features(self, inputs: EncoderInputs) -> PreparedFeatures:
        """Replay SAM3's image encoder."""
        tensors = inputs.pixels, *inputs.lateral_maps
        with self._lock:
            outputs = self._sam.get(inputs.pixels.shape, self._encode_sam, tensors)(*tensors)
            return _unflattened([each.clone() for each in outputs])

    def _encode_sam(self, pixels: torch.Tensor, *lateral_maps: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = super().image_features(EncoderInputs(pixels, pixels, (), lateral_maps))
        return _flattened(features)

    def visual_features(self, inputs: EncoderInputs) -> VisualFeatures:
        """Replay Qwen's vision tower for images of this size."""
        ((_, rows, columns),) = inputs.grids
        plan = self.model.vision_tower.plan(rows, columns)

        with self._lock:
            outputs = self._tower.get((rows, columns), partial(self._run_tower, plan), [inputs.patches])(inputs.patches)
            embeddings, *deepstack = (each.clone() for each in outputs)
        return VisualFeatures(embeddings, deepstack)

    def _run_tower(self, plan: GridPlan, patches: torch.Tensor) -> tuple[torch.Tensor, ...]:
        embeddings, deepstack = self.model.vision_tower(patches, plan)
        return embeddings, *deepstack

    def prefix(self, visual: VisualFeatures, grid: Grid, prompter: Prompter) -> Prefix:
        """Replay the language model up to the end of an image of this size."""
        plan = plan_prefix(self.model, prompter, self.mode, grid)
        rows = len(plan.layout)
        tensors = visual.embeddings, *visual.deepstack
        cache = self.model.text_decoder.new_cache(rows)
        with self._lock:
            outputs = self._prefixes.get(grid, partial(self._prefill, plan), tensors)(*tensors)
            for own, filled in zip((cache.keys, cache.values), outputs, strict=True):
                own[..., :rows, :] = filled
        cache.advance(rows)
        return Prefix(plan.layout, cache)

    def _prefill(
        self, plan: PrefixPlan, embeddings: torch.Tensor, *deepstack: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Return the keys and values [layers, 1, heads, n, d] of a prefix."""
        embeds, image_rows = self.model.embed(plan.ids), plan.image_rows
        embeds = torch.cat(
            [embeds[:, : image_rows.start], embeddings[None].to(embeds.dtype), embeds[:, image_rows.stop :]], dim=1
        )
        cache: Any = NewRows()
        self.model.text_decoder(
            embeds, plan.rotary, cache, image_rows=image_rows, deepstack=deepstack, needs_hidden=False
        )
        return torch.stack(cache.keys), torch.stack(cache.values)

    def sequence(self, prefix: Prefix) -> TokenSequence:
        """Return a sequence whose passes are replayed, unless another sequence uses the buffers."""
        sequence = StaticSequence(self.model, prefix, self._language)
        if prefix.cache.length < CAPACITY and self._language.claim(sequence, prefix):
            return sequence
        return super().sequence(prefix)

    def detect(self, features: PreparedFeatures, groups: Sequence[Group]) -> tuple[torch.Tensor, torch.Tensor]:
        """Replay the detector; the last phrase is repeated until a bucket is full."""
        count = len(groups)
        bucket = smallest_bucket(GROUP_BUCKETS, count)
        if bucket is None or any(len(group.hidden) != self.model.config.num_queries for group in groups):
            return super().detect(features, groups)
        groups = [*groups, *[groups[-1]] * (bucket - count)]
        ids, mask = self.model.pad_phrases([group.phrase_ids for group in groups])
        image = _flattened(features)
        tensors = *image, torch.stack([group.hidden for group in groups]), ids, mask
        with self._lock:
            call = self._detector.get(bucket, self._detect_flat, tensors)
            masks, scores = call(*tensors, unchanged=len(image))
            return masks[:count].clone(), scores[:count].clone()

    def _detect_flat(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        *image, hidden, ids, mask = tensors
        return self._detect(_unflattened(image), hidden, ids, mask)


def _flattened(features: PreparedFeatures) -> tuple[torch.Tensor, ...]:
    return features.attended, features.position, *(each for level in features.levels for each in level)


def _unflattened(tensors: Sequence[torch.Tensor]) -> PreparedFeatures:
    attended, position, *levels = tensors
    pairs = zip(levels[::2], levels[1::2], strict=True)
    side = round(attended.shape[1] ** 0.5)
    return PreparedFeatures(attended, position, tuple(PixelLevel(*pair) for pair in pairs), side)


def new_stages(model: InstructSAMModel, mode: str, how: str) -> Stages:
    """Return the stages of a model.

    Args:
        model: The network.
        mode: One of `core.modes.MODES`.
        how: off, graphs or inductor, see `core.modes.COMPILE`.
    """
    if how == 'off':
        return Stages(model, mode)
    record = partial(record_cuda_graph, model.device) if model.device.type == 'cuda' else record_calls
    return StaticStages(model, mode, record, _inductor if how == 'inductor' else lambda function: function)


def _inductor(function: Any) -> Any:
    """Compile a function of tensors of fixed shapes when it is first called."""
    return torch.compile(function, fullgraph=True, dynamic=False)
