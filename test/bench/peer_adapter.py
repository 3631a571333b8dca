"""The peer's side of bench_peer.py: a process that runs the authors' implementation from the path.

Modules that it imports, but that are not installed and not needed here (STAND_INS), are replaced by mocks.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, patch

import numpy as np
import torch
import torch.nn.functional as F
from workers import serve_methods, timed

STAND_INS = ('datasets', 'ffmpeg', 'qwen_vl_utils', 'torchvision')
LOSSES = {'ce_loss': 'answer', 'mask_bce_loss': 'mask_bce', 'mask_dice_loss': 'mask_dice', 'cls_loss': 'presence'}


def load(model: str, dtype: str) -> Any:
    """Return the peer's model."""
    import transformers  # before the mocks, because it asks which packages are installed

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    missing = [name for name in STAND_INS if importlib.util.find_spec(name) is None]
    sys.modules.update({name: MagicMock(__spec__=ModuleSpec(name, None)) for name in missing})
    from instructsam.models.instructsam import InstructSAMForConditionalGeneration

    config = transformers.AutoConfig.from_pretrained(model)
    config.mask_decoder_model = str(Path(model) / config.mask_decoder_model)
    return InstructSAMForConditionalGeneration.from_pretrained(
        model, config=config, dtype=getattr(torch, dtype), attn_implementation='sdpa'
    )


class Answers:
    """The peer's inference, with an answer whose tokens are forced one by one."""

    def __init__(self, folder: str, model: str, dtype: str):
        """Load the model and the inputs."""
        self.folder, self.model = Path(folder), load(model, dtype).eval()
        self.inputs, self.answer, self.size = torch.load(self.folder / 'inputs.pt')

    def check(self) -> None:
        """Write scores and masks."""
        masks, scores = self._infer()
        masks = F.interpolate(masks.float(), size=self.size, mode='bilinear', align_corners=False) > 0
        np.savez(self.folder / 'peer.npz', scores=scores[0].float().numpy(), masks=masks[0].numpy())

    def run(self) -> list[float]:
        """Return the seconds of a new frame, without and with a head that does not copy its weights.

        The head is given the last of several rows as [1, 1, h], whose strides are not those of a contiguous tensor:
        torch makes a batched product of it, for which some of its kernels copy the whole matrix.
        """
        head = self.model.lm_head

        def rows(hidden: torch.Tensor) -> torch.Tensor:
            return F.linear(hidden.flatten(0, 1), head.weight).unflatten(0, hidden.shape[:2])

        plain, _ = timed(self._infer)
        with patch.object(head, 'forward', rows):
            patched, _ = timed(self._infer)
        return [plain, patched]

    @torch.inference_mode()
    def _infer(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mask logits [G, K, h, w] and scores [G, K]."""
        prompt = self.inputs['input_ids'].shape[1]

        def forced(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            scores[:, self.answer[ids.shape[1] - prompt]] = torch.inf
            return scores

        ids, masks, scores = self.model.inference(
            **{name: tensor.clone() for name, tensor in self.inputs.items()},
            logits_processor=[forced],
            max_new_tokens=len(self.answer) + 1,
            use_cache=True,
            output_hidden_states=True,
            return_dict_in_generate=True,
            do_sample=False,
        )
        if masks is None or ids[0].tolist() != self.answer:
            raise ValueError(f'it wrote {ids[0].tolist()}, expected {self.answer} and masks')
        return masks, scores


class Training:
    """The peer's training step."""

    def __init__(self, folder: str, model: str, _: str):
        """Load the model and the batch."""
        self.model = load(model, 'float32').train()
        self.model.model.grounding_model.model.vision_encoder.requires_grad_(False)
        self.batch, rate = torch.load(Path(folder) / 'batch.pt')
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        # The optimizer that transformers' Trainer makes by default, and its largest norm of gradients.
        self.optimizer, self.clip_norm = torch.optim.AdamW(trained, rate, weight_decay=0.0, fused=True), 1.0

    def run(self) -> list[Any]:
        """Return the seconds of a step, and its losses by this project's names."""
        labels = self.batch['labels'].clone()  # which the forward pass changes

        def step() -> dict[str, float]:
            output = self.model(**{**self.batch, 'labels': labels})
            output.loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            return {own: float(output[name]) for name, own in LOSSES.items()}

        return list(timed(step))


if __name__ == '__main__':
    torch.set_num_threads(1)
    serve_methods({'answers': Answers, 'training': Training}, sys.argv[1:])
