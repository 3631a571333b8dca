"""Phrase segmenters of the agent: SAM3 with its own weights (the paper's baseline), and concept prompting.

An image is encoded once for all phrases, and the masks of a phrase are kept with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from transformers import AutoTokenizer, Sam3Model

from instructsam.core.device import check_finite, resolve_device, resolve_dtype
from instructsam.core.engine import EncodedImage
from instructsam.core.errors import InstructionError, ModelError
from instructsam.core.model.grounding import resize_masks
from instructsam.core.model.preprocess import sam_pixels, to_chw
from instructsam.core.rle import Rle
from instructsam.core.text import shorten
from instructsam.train.engines.agent.state import Mark
from instructsam.train.engines.concept import ConceptEngine

THRESHOLD = 0.5
"""Masks score above it. SAM3's agent has the same value; transformers' own default is 0.3."""

SAM3_TOKENS = 32  # length that SAM3's phrases are padded to


@dataclass(frozen=True, eq=False)
class PhraseImage:
    """An encoded image with the masks of the phrases that were asked about it."""

    height: int  # px
    width: int  # px
    features: Any  # of the segmenter
    known: dict[str, tuple[Mark, ...]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def masks(self, phrase: str, segment: Callable[[], tuple[Mark, ...]]) -> tuple[Mark, ...]:
        """Return the masks of a phrase, from `segment` if they are not known."""
        with self.lock:
            if phrase not in self.known:
                self.known[phrase] = segment()
            return self.known[phrase]


class PhraseBackend(Protocol):
    """A segmenter that finds everything that a noun phrase names."""

    def encode(self, image: np.ndarray) -> PhraseImage:
        """Encode an image [H, W, 3] uint8 RGB. Raises ImageError."""
        ...

    def segment(self, encoded: PhraseImage, phrase: str) -> tuple[Mark, ...]:
        """Return all masks that score above the threshold, in any order. Raises InstructionError."""
        ...


class ConceptBackend:
    """Concept prompting with an InstructSAM model, such as the built-in one: at most K masks per phrase."""

    def __init__(self, engine: ConceptEngine, threshold: float = THRESHOLD) -> None:
        self.engine = engine
        self.threshold = threshold

    def encode(self, image: np.ndarray) -> PhraseImage:
        """Encode an image [H, W, 3] uint8 RGB. Raises ImageError."""
        encoded = self.engine.encode(image)
        return PhraseImage(encoded.height, encoded.width, encoded)

    def segment(self, encoded: PhraseImage, phrase: str) -> tuple[Mark, ...]:
        """Return all masks that score above the threshold. Raises InstructionError."""
        return encoded.masks(phrase, lambda: self._segment(encoded.features, phrase))

    def _segment(self, encoded: EncodedImage, phrase: str) -> tuple[Mark, ...]:
        answer = self.engine.answer_for([phrase])
        result = self.engine.segment(
            encoded, phrase, answer=answer, score_threshold=self.threshold, suppress_duplicates=False
        )
        return tuple(Mark(instance.mask, instance.score) for instance in result.instances)


class Sam3Backend:
    """SAM3 on transformers, with its text encoder and presence token, which InstructSAM's checkpoints lack."""

    def __init__(self, model: Sam3Model, tokenizer: Any, threshold: float = THRESHOLD) -> None:
        """Take a model with its tokenizer."""
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.threshold = threshold
        vision: Any = model.config.vision_config
        self.image_size = int(vision.backbone_config.image_size)  # px

    @classmethod
    def from_folder(
        cls, folder: Path | str, device: str = 'auto', dtype: str = 'auto', threshold: float = THRESHOLD
    ) -> Sam3Backend:
        """Load a folder with SAM3's published files.

        Raises:
            ModelError: It is none, or lacks tensors. transformers would fill those with random numbers.
        """
        folder = Path(folder)
        if not (folder / 'config.json').is_file():
            raise ModelError(f'{folder} has no config.json: give the folder with the weights of SAM3 (facebook/sam3)')
        place = resolve_device(device)
        try:
            loaded: Any = Sam3Model.from_pretrained(
                folder,
                dtype=resolve_dtype(dtype, place),
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
            model, info = loaded
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
            raise ModelError(f'{folder} cannot be loaded as SAM3: {shorten(error)}') from error
        missing = sorted(info['missing_keys']) + sorted(str(key[0]) for key in info['mismatched_keys'])
        if missing:
            raise ModelError(
                f'{folder} is not SAM3: {len(missing)} tensors are missing or of another size, such as {missing[0]}. '
                'An InstructSAM checkpoint has neither the text encoder nor the presence token of SAM3'
            )
        return cls(model.to(place), tokenizer, threshold)

    @torch.inference_mode()
    def encode(self, image: np.ndarray) -> PhraseImage:
        """Run the vision encoder on an image [H, W, 3] uint8 RGB. Raises ImageError."""
        chw = to_chw(image)
        pixels = sam_pixels(chw, self.image_size, self.model.device, self.model.dtype)
        features = self.model.get_vision_features(pixel_values=pixels)
        return PhraseImage(chw.shape[1], chw.shape[2], features)

    def segment(self, encoded: PhraseImage, phrase: str) -> tuple[Mark, ...]:
        """Return all masks that score above the threshold. Raises InstructionError if the phrase is too long."""
        return encoded.masks(phrase, lambda: self._segment(encoded, phrase))

    @torch.inference_mode()
    def _segment(self, encoded: PhraseImage, phrase: str) -> tuple[Mark, ...]:
        text = self.tokenizer(phrase, return_tensors='pt', padding='max_length', max_length=SAM3_TOKENS)
        if text.input_ids.shape[1] > SAM3_TOKENS:
            raise InstructionError(f'it has more than {SAM3_TOKENS} tokens')
        device = self.model.device
        output = self.model(
            vision_embeds=encoded.features,
            input_ids=text.input_ids.to(device),
            attention_mask=text.attention_mask.to(device),
        )
        scores = output.pred_logits[0].float().sigmoid() * output.presence_logits[0].float().sigmoid()
        check_finite(scores, 'the scores of SAM3')
        marks = []
        for slot in map(int, (scores > self.threshold).nonzero()[:, 0]):
            logits = output.pred_masks[0, slot]
            check_finite(logits, 'the masks of SAM3')
            mask = resize_masks(logits[None], encoded.height, encoded.width)[0] > 0
            marks.append(Mark(Rle.encode(mask.cpu().numpy()), float(scores[slot])))
        return tuple(marks)
