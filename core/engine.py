"""The engine: `encode` an image once, then `segment` it with any number of instructions."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from instructsam.core import builtin
from instructsam.core.device import check_finite, not_finite, resolve_compile, resolve_device
from instructsam.core.errors import ImageError, InstructionError, ModelError
from instructsam.core.model import checkpoint
from instructsam.core.model.graphs.stages import Stages
from instructsam.core.model.graphs.warm_up import compiled_stages
from instructsam.core.model.grounding import PreparedFeatures, resize_masks
from instructsam.core.model.instructsam import EncoderInputs, InstructSAMModel
from instructsam.core.model.preprocess import Preprocessor, example_image, load_preprocessor, sam_pixels, to_chw
from instructsam.core.model.prompt import Prompter, check_instruction
from instructsam.core.model.sequence import ForwardPass, Group, Prefix, TokenSequence
from instructsam.core.model.tokenizer import load_prompter
from instructsam.core.modes import DUPLICATE_IOU, MODES
from instructsam.core.result import Instance, Result
from instructsam.core.rle import Rle
from instructsam.core.step_timer import StepTimer
from instructsam.core.threads import report_late

GROUPS_PER_CALL = 4  # number of phrases that share one detector call; bounds its memory
MAX_ANSWER_TOKENS = 4096  # longest forced answer
EXAMPLE_SIZE = (480, 640)  # height and width in px of the images for which stages are compiled when a model is loaded
MASK_PIXELS = 1 << 22  # pixels of the full-size masks in memory at a time; larger batches are not faster


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """An encoded image. Immutable: any number of instructions may use it, in any order, from any thread."""

    height: int  # px
    width: int  # px
    features: PreparedFeatures  # SAM3's image features
    prefix: Prefix  # the language model's cache up to the end of the image
    timings_ms: dict[str, float]  # steps image_encoders and prefill
    engine: InstructSAM  # the engine that encoded it


class SlotMasks(NamedTuple):
    """The detector's output for the K slots of one phrase."""

    logits: torch.Tensor  # [K, h, w] mask logits
    scores: torch.Tensor  # [K], 0 to 1


class InstructSAM:
    """Instruction-driven instance segmentation with one model.

    Re-entrant: no call leaves state on the model, so several threads may share one engine.

        engine = InstructSAM.from_pretrained('path/to/checkpoint')
        encoded = engine.encode(image)                  # [H, W, 3] uint8 RGB
        result = engine.segment(encoded, 'the mugs left of the kettle')
        for instance in result.instances:
            instance.mask.decode(), instance.score      # [H, W] bool, 0 to 1
    """

    def __init__(
        self,
        model: InstructSAMModel,
        prompter: Prompter,
        preprocessor: Preprocessor,
        stop_ids: Iterable[int],
        *,
        name: str = '',
        mode: str = 'consistent',
        folder: Path | None = None,
        warning: str = '',
        stages: Stages | None = None,
    ):
        """Assemble an engine from its parts; see `from_pretrained`.

        Args:
            model: The network.
            prompter: Its tokenizer and chat template.
            preprocessor: Qwen's image preprocessing.
            stop_ids: Ids of the tokens that end an answer.
            name: Name of the model, for display.
            mode: One of `core.modes.MODES`.
            folder: The model folder, whose small files `save_pretrained` copies.
            warning: Human-readable limits of the model; part of every result.
            stages: Runs the stages of the network; None: one operation after the other.
        """
        _check_mode(mode)
        self.model = model
        self.prompter = prompter
        self.preprocessor = preprocessor
        self.stop_ids = frozenset(stop_ids)
        self.name = name
        self.mode = mode
        self.folder = folder
        self.warning = warning
        self.stages = stages or Stages(model, mode)
        self.runs_ahead = model.device.type == 'cuda'

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        device: str | torch.device = 'auto',
        dtype: str | torch.dtype = 'auto',
        mode: str = 'consistent',
        revision: str = '',
        compile: str = 'auto',  # noqa: A002  # the name of the option and of the parameter
    ) -> InstructSAM:
        """Load a built-in model, a model folder or a hub id.

        Args:
            name: 'tabletop', the path of a folder, or a hub id (owner/name).
            device: auto (CUDA if there is one, else CPU) or a torch device.
            dtype: auto (bfloat16 on CUDA, float16 if the GPU lacks it; on CPUs float32, or bfloat16 for large models
                where the CPU has instructions for it), float32, bfloat16 or float16.
            mode: consistent (as trained), reference (as in the authors' inference code) or causal (for ablation);
                see docs/model.md.
            revision: Commit, tag or branch of a hub id; empty: its main branch.
            compile: One of core.modes.COMPILE: auto (CUDA graphs on CUDA, off on the CPU), off, graphs or inductor.

        Raises:
            ModelError: The model cannot be loaded; the message is human-readable.
        """
        _check_mode(mode)  # before the weights are read
        device = resolve_device(device)
        resolve_compile(compile, device)
        if device.type == 'cpu':
            report_late(torch.get_num_threads())
        folder = builtin.folder(name, revision)
        model = checkpoint.load(folder, device, dtype)
        model.join_projections()
        preprocessor = load_preprocessor(folder, model.config)
        prompter, stop_ids = load_prompter(folder, model.config)
        warning = builtin.warning(name)
        engine = cls(model, prompter, preprocessor, stop_ids, name=str(name), mode=mode, folder=folder, warning=warning)
        engine.compile(compile)
        return engine

    def compile(self, how: str) -> None:
        """Compile the stages of the network, for one of core.modes.COMPILE.

        Raises ModelError if that does not work here; with auto, the log says why instead.
        """
        resolved = resolve_compile(how, self.device)
        if resolved != 'off':
            inputs = self.example_inputs()
            self.stages = compiled_stages(self.model, self.mode, resolved, self.prompter, inputs, strict=how != 'auto')

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a model folder that `from_pretrained` reads back bit for bit."""
        checkpoint.save(self.model, folder, source=self.folder)

    @property
    def revision(self) -> str:
        """Commit of a model from the hub; empty for any other."""
        return '' if self.folder is None else builtin.commit_of(self.folder)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.model.device

    @property
    def precision(self) -> str:
        """Precision of the weights, such as float32."""
        return str(self.model.dtype).removeprefix('torch.')

    @torch.inference_mode()
    def encode(
        self, image: np.ndarray[Any, Any] | torch.Tensor, *, cancelled: Callable[[], bool] | None = None
    ) -> EncodedImage:
        """Run both image encoders and the language model up to the end of the image, once for all instructions.

        Args:
            image: [H, W, 3] uint8 RGB, numpy or torch.
            cancelled: Returns true once the result is no longer wanted; checked before each step and between the two
                encoders.

        Raises:
            ImageError: The image cannot be used.
            CancelledError: `cancelled` returned true.
        """
        timer = StepTimer(self.device, cancelled)
        chw = to_chw(image)
        with timer.step('image_encoders'):
            inputs = self.encoder_inputs(chw)
            features = self.stages.image_features(inputs)
            timer.check()
            visual = self.stages.visual_features(inputs)
        with timer.step('prefill'):
            prefix = self.stages.prefix(visual, inputs.grids[0], self.prompter)
        return EncodedImage(chw.shape[1], chw.shape[2], features, prefix, timer.timings_ms, self)

    @torch.inference_mode()
    def segment(
        self,
        encoded: EncodedImage,
        instruction: str,
        *,
        score_threshold: float = 0.5,
        answer: str | Sequence[int] | None = None,
        max_new_tokens: int = 256,
        time_budget_s: float | None = None,
        suppress_duplicates: bool = True,
        cancelled: Callable[[], bool] | None = None,
    ) -> Result:
        """Find the objects that `instruction` names.

        Args:
            encoded: The image, from this engine's `encode`.
            instruction: Text such as 'the mugs left of the kettle'.
            score_threshold: Instances must score above it, 0 to 1.
            answer: Skip decoding and use this answer instead: text in the model's notation
                (`<|object_ref_start|>phrase<|object_ref_end|>, ...`) or token ids (see `answer_for`).
            max_new_tokens: Limit of the decoded answer. Phrases that are complete by then count.
            time_budget_s: Time after which decoding ends. Phrases that are complete by then count.
            suppress_duplicates: Of masks with an IoU above DUPLICATE_IOU, keep only the best.
            cancelled: Returns true once the result is no longer wanted; checked before each step and for each token,
                detector call and batch of masks.

        Raises:
            ValueError: `score_threshold` is not from 0 to 1.
            InstructionError: The instruction or the forced answer cannot be used.
            ModelError: The model computes numbers that are not finite.
            ImageError: The image was encoded by another engine.
            CancelledError: `cancelled` returned true.
        """
        self._check_encoded(encoded)
        if not 0 <= score_threshold <= 1:
            raise ValueError(f'score_threshold is a probability from 0 to 1, got {score_threshold}')
        text = check_instruction(instruction)
        timer = StepTimer(self.device, cancelled, encoded.timings_ms)
        deadline_s = None if time_budget_s is None else time.monotonic() + time_budget_s

        sequence = self._new_sequence(encoded.prefix)
        prompt = self.prompter.instruction_ids(text)
        if answer is None:
            with timer.step('prefill'):
                output = sequence.add_text(prompt)
            with timer.step('generation'):
                finish_reason = self._generate(sequence, output, max_new_tokens, deadline_s, timer)
        else:
            with timer.step('generation'):
                finish_reason = 'forced'
                sequence.add_answer(self._forced_ids(answer), prompt)
        with timer.step('detector'):
            detected = self._detect(encoded.features, sequence.groups, timer)
        with timer.step('masks'):
            phrases = tuple(self.prompter.text(group.text_ids) for group in sequence.groups)
            instances = self.instances(detected, phrases, encoded, score_threshold, timer)
            if suppress_duplicates:
                instances = mask_nms(instances)
        return Result(
            instruction=instruction,
            answer=self.prompter.text(sequence.answer_ids),
            height=encoded.height,
            width=encoded.width,
            instances=tuple(instances),
            phrases=phrases,
            finish_reason=finish_reason,
            warning=self.warning,
            model=self.name,
            revision=self.revision,
            timings_ms=timer.timings_ms,
        )

    def answer_for(self, phrases: Iterable[str]) -> list[int]:
        """Return the token ids of the answer that names `phrases`, for `segment(answer=...)`.

        A caller that knows the phrases saves the decoding. Special tokens in a phrase are plain text. Raises
        InstructionError for an unusable phrase.
        """
        return self.prompter.phrases_answer_ids(phrases)

    def encoder_inputs(self, chw: torch.Tensor) -> EncoderInputs:
        """Return the encoders' inputs for an image [3, H, W] uint8; with a trunk, this runs it."""
        model = self.model
        pixels = sam_pixels(chw, model.config.image_size, model.device, model.dtype)
        patches, grid = self.preprocessor(chw, model.device, model.dtype)
        return model.encoder_inputs(pixels, patches, [grid])

    @torch.inference_mode()
    def example_inputs(self) -> EncoderInputs:
        """Return the encoders' inputs for an image of EXAMPLE_SIZE."""
        return self.encoder_inputs(to_chw(example_image(*EXAMPLE_SIZE)))

    def _check_encoded(self, encoded: object) -> None:
        if not isinstance(encoded, EncodedImage):
            raise ImageError(f'segment takes an EncodedImage from encode(), got {type(encoded).__name__}')
        if encoded.engine is not self:
            raise ImageError('the image was encoded by another engine. Encode it again with this one')

    def _new_sequence(self, prefix: Prefix) -> TokenSequence:
        return self.stages.sequence(prefix)

    def _forced_ids(self, answer: str | Sequence[int]) -> list[int]:
        """Return the token ids of a forced answer. Raises InstructionError if they are too many or unknown."""
        ids = self.prompter.answer_ids(answer) if isinstance(answer, str) else list(answer)
        vocabulary: int = self.model.config.text.vocab_size
        if not ids or len(ids) > MAX_ANSWER_TOKENS or not all(0 <= token < vocabulary for token in ids):
            raise InstructionError(
                f'a forced answer has 1 to {MAX_ANSWER_TOKENS} tokens of the vocabulary, got {len(ids)} tokens'
            )
        return ids

    def _generate(
        self,
        sequence: TokenSequence,
        output: ForwardPass,
        max_new_tokens: int,
        deadline_s: float | None,
        timer: StepTimer,
    ) -> str:
        """Decode greedily until the answer or a budget ends; return the finish reason.

        The last token is not fed back. On a GPU, the network runs a token before the host has read it, so that the host
        never waits for the newest one; the end of the answer is therefore known one step later.
        """
        runs_ahead = self.runs_ahead and sequence.can_run_ahead
        for _ in range(max_new_tokens):
            timer.check()
            if deadline_s is not None and time.monotonic() > deadline_s:
                return 'time_budget'
            pick = sequence.pick(output)
            if runs_ahead:
                sequence.run_ahead(pick)
            token, score = pick.read()
            if not math.isfinite(score):
                raise not_finite('the score of the next word', self.model.dtype)
            if token in self.stop_ids:
                return 'stop'
            output = sequence.accept(token)
        return 'token_budget'

    def _detect(self, features: PreparedFeatures, groups: Sequence[Group], timer: StepTimer) -> list[SlotMasks]:
        """Run the detector on every group, a few groups at a time."""
        detected: list[SlotMasks] = []
        for start in range(0, len(groups), GROUPS_PER_CALL):
            timer.check()
            found = self._detect_groups(features, groups[start : start + GROUPS_PER_CALL])
            check_finite([slots.scores for slots in found], 'the scores of the instances')
            check_finite([slots.logits for slots in found], 'the masks of the instances')
            detected += found
        return detected

    def _detect_groups(self, features: PreparedFeatures, groups: Sequence[Group]) -> list[SlotMasks]:
        """Run the detector once on all of `groups`."""
        return [SlotMasks(*slots) for slots in zip(*self.stages.detect(features, groups), strict=True)]

    def instances(
        self,
        detected: Sequence[SlotMasks],
        phrases: Sequence[str],
        encoded: EncodedImage,
        threshold: float,
        timer: StepTimer,
    ) -> list[Instance]:
        """Return the instances above the threshold whose mask is not empty, best first.

        Only as many full-size masks are in memory at a time as MASK_PIXELS allow.

        Args:
            detected: The detector's output, one entry per phrase.
            phrases: Texts of the phrases.
            encoded: The image, whose size the masks get.
            threshold: Instances must score above it, 0 to 1.
            timer: Checks for cancellation.
        """
        instances: list[Instance] = []
        size = encoded.height, encoded.width
        for group, (logits, scores) in enumerate(detected):
            host_scores = cast(list[float], scores.tolist())  # pyright: ignore[reportUnknownMemberType]
            slots = [slot for slot, score in enumerate(host_scores) if score > threshold]
            count = max(1, MASK_PIXELS // (size[0] * size[1]))
            for start in range(0, len(slots), count):
                timer.check()
                batch = slots[start : start + count]
                masks = (resize_masks(torch.stack([logits[slot] for slot in batch]), *size) > 0).cpu().numpy()
                for slot, mask in zip(batch, masks, strict=True):
                    rle = Rle.encode(mask)
                    if rle.area:
                        instances.append(Instance(rle, host_scores[slot], phrases[group], slot, group))
        return sorted(instances, key=lambda instance: -instance.score)


def _check_mode(mode: str) -> None:
    if mode not in MODES:
        raise ModelError(f'mode must be one of {", ".join(MODES)}, got {mode!r}')


def mask_nms(instances: Iterable[Instance], iou: float = DUPLICATE_IOU) -> list[Instance]:
    """Apply greedy non-maximum suppression by mask IoU.

    `instances` are sorted, best first; one is dropped if its mask IoU with a kept one is above `iou`.
    """
    kept: list[Instance] = []
    for instance in instances:
        if not (instance.mask.iou([other.mask for other in kept]) > iou).any():
            kept.append(instance)
    return kept
