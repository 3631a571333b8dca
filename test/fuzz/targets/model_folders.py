"""Model folders given to the loader: configurations, tokenizer, chat template, preprocessor, weights, index, adapters.

The folder also holds a Python file that leaves a mark when it is imported, named in some seeds as transformers' custom
code is (`auto_map`): nothing in a model folder may run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from harness import pictures
from harness.engine import CHECKPOINT
from harness.example import Example, write_files
from harness.target import ACCEPTED, InProcessTarget, Verdict, WrongAnswerError, check_finite, judge, run_command
from hypothesis import strategies as st

MARK = 'code_ran'
EVIL = f'open({MARK!r}, "w").close()\n\n\nclass Evil:\n    pass\n'
AUTO_MAP = dict.fromkeys(
    ('AutoConfig', 'AutoModel', 'AutoTokenizer', 'AutoImageProcessor', 'AutoProcessor'), 'evil.Evil'
)


class ModelFolders(InProcessTarget):
    """Folders in the published layout; those with LoRA matrices are merged, the others loaded and asked."""

    name: ClassVar[str] = 'model_folders'
    time_limit_s: ClassVar[float] = 60.0
    memory_mb: ClassVar[int] = 2000
    seeds: ClassVar[tuple[str, ...]] = ('single', 'single', 'small files', 'sharded', 'custom code', 'adapter')

    def options(self) -> st.SearchStrategy[dict[str, Any]]:
        """Return the strategy: how the model is asked."""
        return st.fixed_dictionaries({'forced': st.booleans()})

    def open(self, folder: Path) -> None:
        """Make the seeds: the tiny checkpoint in several shapes."""
        import logging

        logging.disable(logging.WARNING)
        files = {
            str(path.relative_to(CHECKPOINT)): path.read_bytes() for path in CHECKPOINT.rglob('*') if path.is_file()
        }
        files['evil.py'] = EVIL.encode()
        weights = files['model.safetensors']
        custom = dict(files)
        for name in ('config.json', 'tokenizer_config.json', 'preprocessor_config.json'):
            custom[name] = json.dumps({**json.loads(custom[name]), 'auto_map': AUTO_MAP}).encode()
        self._seeds = {
            'single': files,
            'small files': files,
            'custom code': custom,
            'sharded': self._sharded(files, folder),
            'adapter': {**files, **self._adapter(folder)},
        }
        self._weights = weights
        self._image = pictures.rgb()
        self._expected: dict[bool, Any] = {}

    @staticmethod
    def _sharded(files: dict[str, bytes], folder: Path) -> dict[str, bytes]:
        """Return the folder with its weights in two files and an index."""
        from safetensors.torch import load, save

        tensors = load(files['model.safetensors'])
        names = sorted(tensors)
        halves = names[: len(names) // 2], names[len(names) // 2 :]
        sharded = {name: data for name, data in files.items() if name != 'model.safetensors'}
        index = {}
        for number, half in enumerate(halves, 1):
            file = f'model-{number:05}-of-00002.safetensors'
            sharded[file] = save({name: tensors[name] for name in half}, {'format': 'pt'})
            index.update(dict.fromkeys(half, file))
        sharded['model.safetensors.index.json'] = json.dumps({'metadata': {}, 'weight_map': index}).encode()
        return sharded

    @staticmethod
    def _adapter(folder: Path) -> dict[str, bytes]:
        """Return the files that a LoRA stage leaves beside the weights."""
        import torch
        from safetensors.torch import save

        rank, hidden = 2, 64
        tensors = {}
        for layer in range(2):
            name = f'base_model.model.model.language_model.layers.{layer}.self_attn.o_proj'
            tensors[f'{name}.lora_A.weight'] = torch.full((rank, hidden), 0.01)
            tensors[f'{name}.lora_B.weight'] = torch.full((hidden, rank), 0.01)
        config = {
            'peft_type': 'LORA',
            'task_type': None,
            'r': rank,
            'lora_alpha': 4,
            'lora_dropout': 0.0,
            'target_modules': r'model\.language_model\..*\.(o_proj)',
            'bias': 'none',
            'inference_mode': True,
        }
        return {'adapter_model.safetensors': save(tensors), 'adapter_config.json': json.dumps(config).encode()}

    def run(self, example: Example, folder: Path) -> Verdict:
        """Load the model and ask it, or merge its adapter."""
        changes = example.changes
        files = self._seeds[example.seed]
        if example.seed == 'small files':  # the weights stay as they are
            others = {name: data for name, data in files.items() if name != 'model.safetensors'}
            write_files(others, changes, folder)
            (folder / 'model.safetensors').write_bytes(self._weights)
        else:
            write_files(files, changes, folder)
        mark = Path.cwd() / MARK
        try:
            return self._merge(example, folder) if example.seed == 'adapter' else self._ask(example, folder)
        finally:
            if mark.exists() or (folder / MARK).exists():
                mark.unlink(missing_ok=True)
                raise WrongAnswerError('a Python file of the model folder ran')

    def _ask(self, example: Example, folder: Path) -> Verdict:
        from instructsam.core import InstructSAM
        from instructsam.core.errors import ModelError

        is_forced = example.options['forced']
        try:
            engine = InstructSAM.from_pretrained(folder, device='cpu', dtype='float32')
            encoded = engine.encode(self._image)
            answer = engine.answer_for(['red square']) if is_forced else None
            result = engine.segment(encoded, 'the red square', score_threshold=0.05, answer=answer, max_new_tokens=6)
        except ModelError as error:
            if not example.changes:
                raise WrongAnswerError(f'the valid folder is refused: {error}') from error
            raise
        document = result.to_json()
        document.pop('timings_ms')
        check_finite(document)
        self._check_weights(folder)
        if not example.changes:
            expected = self._expected.setdefault(is_forced, document)
            if document != expected:
                raise WrongAnswerError('a valid folder is answered otherwise than the one before')
        return ACCEPTED

    @staticmethod
    def _check_weights(folder: Path) -> None:
        """Raise WrongAnswerError if a model with weights that are not finite has answered."""
        from safetensors.numpy import load_file

        for file in folder.glob('model*.safetensors'):
            for name, tensor in load_file(file).items():
                if tensor.dtype.kind == 'f' and not np.isfinite(tensor).all():
                    raise WrongAnswerError(f'a model answers though {name} has numbers that are not finite')

    def _merge(self, example: Example, folder: Path) -> Verdict:
        import shutil

        out = folder.parent / 'merged'
        shutil.rmtree(out, ignore_errors=True)
        verdict = judge(run_command(['train', 'merge', str(folder), str(out)]))
        if verdict.state == 'accepted':
            self._check_weights(out)
        elif not example.changes:
            raise WrongAnswerError(f'a valid adapter is refused: {verdict.message}')
        return verdict


TARGET = ModelFolders()
