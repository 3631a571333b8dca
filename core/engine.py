"""The engine: `encode` an image once, `segment` it with any number of instructions."""

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from transformers import AutoTokenizer, GenerationConfig

from instructsam.core import builtin
from instructsam.core.errors import CancelledError, ImageError, InstructionError, ModelError
from instructsam.core.model import checkpoint
from instructsam.core.model.grounding import ImageFeatures, resize_masks
from instructsam.core.model.preprocess import QwenPreprocessor, sam_pixels, to_chw
from instructsam.core.model.prompt import Prompter, check_instruction
from instructsam.core.model.sequence import Prefix, Sequence, encode_prefix
from instructsam.core.modes import MODES
from instructsam.core.result import Instance, Result
from instructsam.core.rle import Rle

logger = logging.getLogger(__name__)

GROUPS_PER_CALL = 4  # phrases that share one detector call; bounds its memory
MAX_ANSWER_TOKENS = 4096  # of a forced answer
DUPLICATE_IOU = 0.8
DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """An encoded image. Immutable: any number of instructions may use it, in any order, from any thread."""

    height: int  # px
    width: int  # px
    features: ImageFeatures  # for SAM3
    prefix: Prefix  # for the language model
    timings_ms: dict[str, float]  # image_encoders, prefill
    engine: object  # the engine that encoded it


class InstructSAM:
    """Instruction-driven instance segmentation on one model.

    Re-entrant: no call leaves anything on the model, so several threads may use one engine.

        engine = InstructSAM.from_pretrained('path/to/checkpoint')
        frame = engine.encode(image)                    # [H, W, 3] uint8 RGB
        result = engine.segment(frame, 'the mugs left of the kettle')
        for instance in result.instances:
            instance.mask.decode(), instance.score      # [H, W] bool, 0 to 1
    """

    def __init__(self, model, prompter, preprocessor, stop_ids, *, name='', mode='consistent', folder=None, warning=''):
        if mode not in MODES:
            raise ModelError(f'mode is one of {", ".join(MODES)}, got {mode!r}')
        self.model = model
        self.prompter = prompter
        self.preprocessor = preprocessor
        self.stop_ids = frozenset(stop_ids)
        self.name = name
        self.mode = mode
        self.folder = folder
        self.warning = warning  # for a person; goes with every result

    @classmethod
    def from_pretrained(cls, name, device='auto', dtype='auto', mode='consistent'):
        """Loads a built-in model, a model folder or a hub id.

        device: auto (CUDA where there is one, else CPU) or a torch device; dtype: auto (bfloat16 on CUDA, float16 where
        the GPU lacks it, float32 on CPU), float32, bfloat16 or float16; mode: consistent (as trained), reference (as
        the authors' inference code runs it) or causal (for ablation), see README. Raises ModelError with a message for
        a person.
        """
        if mode not in MODES:
            raise ModelError(f'mode is one of {", ".join(MODES)}, got {mode!r}')
        device = _device(device)
        dtype = _dtype(dtype, device)
        folder = builtin.folder(name)
        model = checkpoint.load(folder, device, dtype)
        warning = builtin.WARNING if name in builtin.MODELS else ''
        prompter, stop_ids = load_prompter(folder, model.config)
        preprocessor = QwenPreprocessor.from_folder(folder)
        return cls(model, prompter, preprocessor, stop_ids, name=str(name), mode=mode, folder=folder, warning=warning)

    def save_pretrained(self, folder):
        """Writes a model folder that `from_pretrained` reads back bit for bit."""
        checkpoint.save(self.model, folder, source=self.folder)

    @property
    def device(self):
        return self.model.device

    @torch.inference_mode()
    def encode(self, image, *, cancelled=None):
        """Runs both image encoders and the image's part of the language model, once for all instructions.

        image: [H, W, 3] uint8 RGB, numpy or torch. Returns a EncodedImage. Raises ImageError, or
        CancelledError where `cancelled()`
        turned true on the way.
        """
        clock = _StageTimer(self.device, cancelled)
        chw = to_chw(image)
        target = {'device': self.device, 'dtype': self.model.dtype}
        with clock('image_encoders'):
            features = self.model.grounding.encode(sam_pixels(chw, self.model.grounding.image_size, **target))
            clock.check()
            patches, grid = self.preprocessor(chw, **target)
            visual = self.model.encode_image(patches, grid)
        with clock('prefill'):
            prefix, _ = encode_prefix(self.model, self.prompter, self.mode, visual, grid)
        return EncodedImage(chw.shape[1], chw.shape[2], features, prefix, clock.timings_ms, self)

    @torch.inference_mode()
    def segment(
        self,
        frame,
        instruction,
        *,
        score_threshold=0.5,
        answer=None,
        max_new_tokens=256,
        time_budget_s=None,
        suppress_duplicates=True,
        cancelled=None,
    ):
        """Finds what `instruction` names in `frame`.

        score_threshold: instances score above it. answer: skips decoding and takes this answer instead, text in the
        model's notation (`<|object_ref_start|>phrase<|object_ref_end|>, ...`) or token ids (see `answer_for`).
        max_new_tokens, time_budget_s: where the decoding of an answer ends at the latest; the phrases complete by then
        count. suppress_duplicates: of masks that overlap by more than 0.8 IoU only the best scored stays.
        cancelled: asked between steps; where it returns true, CancelledError is raised.

        Returns a Result. Raises InstructionError, ImageError (a frame of another engine), CancelledError.
        """
        if not isinstance(frame, EncodedImage):
            raise ImageError(f'segment takes a EncodedImage from encode(), got {type(frame).__name__}')
        if frame.engine is not self:
            raise ImageError('the frame was encoded by another engine. Encode it again with this one')
        if not 0 <= score_threshold <= 1:
            raise ValueError(f'score_threshold is a probability from 0 to 1, got {score_threshold}')
        text = check_instruction(instruction)
        clock = _StageTimer(self.device, cancelled, frame.timings_ms)
        deadline = None if time_budget_s is None else time.monotonic() + time_budget_s

        sequence = self._sequence(frame.prefix)
        with clock('prefill'):
            step = sequence.add_text(self.prompter.instruction_ids(text))
        with clock('generation'):
            if answer is None:
                reason = self._generate(sequence, step, max_new_tokens, deadline, clock)
            else:
                reason = 'forced'
                sequence.add_answer(self._forced_ids(answer))
        with clock('detector'):
            detected = self._detect(frame.features, sequence.groups, clock)
        with clock('masks'):
            phrases = tuple(self.prompter.text(group.text_ids) for group in sequence.groups)
            instances = self._instances(detected, phrases, frame, score_threshold, clock)
            if suppress_duplicates:
                instances = mask_nms(instances)
        return Result(
            instruction=instruction,
            answer=self.prompter.text(sequence.answer_ids),
            height=frame.height,
            width=frame.width,
            instances=tuple(instances),
            phrases=phrases,
            finish_reason=reason,
            warning=self.warning,
            timings_ms=clock.timings_ms,
        )

    def answer_for(self, phrases):
        """Token ids of the answer that names `phrases`, for `segment(answer=...)`: a caller that knows the phrase pays
        no decoding. Special tokens in a phrase are plain text. Raises InstructionError for an unusable phrase.
        """
        return self.prompter.phrases_answer_ids(phrases)

    def _sequence(self, prefix):
        return Sequence(self.model, prefix)

    def _forced_ids(self, answer):
        ids = self.prompter.answer_ids(answer) if isinstance(answer, str) else list(answer)
        vocabulary = self.model.config.qwen.text_config.vocab_size
        if not ids or len(ids) > MAX_ANSWER_TOKENS or not all(0 <= token < vocabulary for token in ids):
            raise InstructionError(
                f'a forced answer has 1 to {MAX_ANSWER_TOKENS} tokens of the vocabulary, got {len(ids)} tokens'
            )
        return ids

    def _generate(self, sequence, step, max_new_tokens, deadline, clock):
        """Greedy decoding until the answer ends or a budget does; returns which. The last token is not fed back."""
        for _ in range(max_new_tokens):
            clock.check()
            if deadline is not None and time.monotonic() > deadline:
                return 'time_budget'
            token = int(self.model.token_logits(step.hidden[:, -1]).argmax())
            if token in self.stop_ids:
                return 'stop'
            step = sequence.add_answer([token])
        return 'token_budget'

    def _detect(self, features, groups, clock):
        """Mask logits [K, h, w] and scores [K] of every group."""
        detected = []
        for start in range(0, len(groups), GROUPS_PER_CALL):
            clock.check()
            detected += zip(*self._find(features, groups[start : start + GROUPS_PER_CALL]), strict=True)
        return detected

    def _find(self, features, groups):
        """One detector call: mask logits [G, K, h, w] and scores [G, K]."""
        queries = self.model.slot_queries(torch.stack([group.hidden for group in groups]))
        text, text_mask = self.model.phrase_conditioning([group.phrase_ids for group in groups], self.mode)
        output = self.model.grounding(features, queries, text, text_mask)
        return output.mask_logits, output.logits.float().sigmoid()

    def _instances(self, detected, phrases, frame, threshold, clock):
        """Instances above the threshold whose mask has a pixel, best first; one full-size mask at a time."""
        instances = []
        for group, (masks, scores) in enumerate(detected):
            for slot in (scores > threshold).nonzero().flatten().tolist():
                clock.check()
                mask = resize_masks(masks[slot][None], frame.height, frame.width)[0] > 0
                rle = Rle.encode(mask.cpu().numpy())
                if rle.area:
                    instances.append(Instance(rle, float(scores[slot]), phrases[group], slot, group))
        return sorted(instances, key=lambda instance: -instance.score)


def mask_nms(instances, iou=DUPLICATE_IOU):
    """Of `instances`, best first, those that overlap no better one by more than `iou` (mask IoU)."""
    kept = []
    for instance in instances:
        if not (instance.mask.iou([other.mask for other in kept]) > iou).any():
            kept.append(instance)
    return kept


class _StageTimer:
    """Times stages in ms (waiting for the device) and asks between them whether the caller still wants the result."""

    def __init__(self, device, cancelled, timings_ms=None):
        self._wait = partial(torch.cuda.synchronize, device) if device.type == 'cuda' else lambda: None
        self._cancelled = cancelled
        self.timings_ms = dict(timings_ms or {})

    def check(self):
        if self._cancelled is not None and self._cancelled():
            raise CancelledError('the caller no longer wants this result')

    @contextmanager
    def __call__(self, stage):
        self.check()
        start = time.perf_counter()
        yield
        self._wait()
        self.timings_ms[stage] = self.timings_ms.get(stage, 0.0) + (time.perf_counter() - start) * 1e3


def _device(device):
    if str(device) == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f'the device {str(device)!r} cannot be used: {error}'.splitlines()[0]) from error
    return found


def _dtype(dtype, device):
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == 'auto':
        if device.type != 'cuda':
            return torch.float32
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    if dtype not in DTYPES:
        raise ModelError(f'dtype is auto, {", ".join(DTYPES)}, got {dtype!r}')
    return DTYPES[dtype]


def load_prompter(folder, config):
    """The Prompter and the ids that end an answer."""
    folder = Path(folder)
    if not any((folder / name).is_file() for name in ('tokenizer.json', 'vocab.json')):
        raise ModelError(f'{folder} holds no tokenizer (tokenizer.json)')
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises many kinds here
        raise ModelError(f'{folder} holds a tokenizer that cannot be read: {error}') from error
    stop = {tokenizer.eos_token_id}
    if (folder / 'generation_config.json').is_file():
        ends = GenerationConfig.from_pretrained(folder).eos_token_id
        stop.update(ends if isinstance(ends, list) else [ends])
    stop.discard(None)
    if not stop:
        raise ModelError(f'{folder} does not say which token ends an answer (eos_token_id)')
    return Prompter(tokenizer, config.tokens), stop
