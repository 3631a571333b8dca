"""Annotation files and images given to the readers of training data and of benchmarks, and to `instructsam eval`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from harness import data_files
from harness.engine import CHECKPOINT, tiny_engine, use_tiny_engine
from harness.example import Example, write_files
from harness.target import ACCEPTED, InProcessTarget, Verdict, WrongAnswerError, judge, run_command
from hypothesis import strategies as st

NUM_QUERIES = 10
MOST_RUN = 20  # queries that `instructsam eval` answers


class DataSets(InProcessTarget):
    """Training records, scenes and benchmarks."""

    name: ClassVar[str] = 'data_sets'
    time_limit_s: ClassVar[float] = 30.0
    seeds: ClassVar[tuple[str, ...]] = (*data_files.TRAINING * 3, *data_files.BENCHMARKS)

    def options(self) -> st.SearchStrategy[dict[str, Any]]:
        """Return the strategy: now and then the whole command instead of the reader alone."""
        return st.fixed_dictionaries({'command': st.sampled_from([False, False, False, False, False, True])})

    def open(self, folder: Path) -> None:
        """Load the engine and make the seeds."""
        logging.disable(logging.WARNING)  # every broken record is logged
        tiny_engine()
        self._sets = {**data_files.training_sets(), **data_files.benchmark_sets()}
        self._collator: Any = None

    def run(self, example: Example, folder: Path) -> Verdict:
        """Read the data set."""
        write_files(self._sets[example.seed], example.changes, folder)
        if example.seed == 'train scenes':
            return self._scenes(folder)
        if example.seed.startswith('train'):
            return self._records(folder, is_valid=not example.changes)
        if example.options['command']:
            return self._evaluate(example, folder)
        return self._benchmark(example, folder)

    @staticmethod
    def _sources(folder: Path) -> Any:
        from instructsam.core.errors import DataError
        from instructsam.core.files.yaml_file import read_yaml
        from instructsam.train.data.mixing import mixing_list

        sources = mixing_list(read_yaml(folder / 'mix.yaml'), folder)
        for source in sources:
            if source.repeat > 1000:
                raise DataError('more repetitions than this test reads')
        return sources

    def _records(self, folder: Path, *, is_valid: bool) -> Verdict:
        """Read and collate every record; check masks, boxes and phrases."""
        from instructsam.train.data.dataset import RecordDataset

        dataset = RecordDataset(self._sources(folder), NUM_QUERIES)
        # Every index is read, but those that repeat a record.
        samples = [dataset[index] for index in range(min(len(dataset), 60))]
        if is_valid and dataset.broken:
            raise WrongAnswerError(f'{dataset.broken} valid records are skipped')
        for sample in samples:
            self._check_sample(sample)
        self._check_batch(samples[:2])
        return ACCEPTED

    @staticmethod
    def _check_sample(sample: Any) -> None:
        size = (sample.height, sample.width)
        if sample.pixels is None or tuple(sample.pixels.shape[1:]) != size:
            raise WrongAnswerError(f'pixels of {sample.pixels.shape} in a sample of {size}')
        for turn in sample.turns:
            if len(turn.phrases) != len(turn.targets) or not turn.question.strip():
                raise WrongAnswerError('a turn without a question, or phrases without targets')
            for target in turn.targets:
                if len(target) > NUM_QUERIES:
                    raise WrongAnswerError(f'{len(target)} instances for {NUM_QUERIES} slots')
                for mask in target.masks:
                    if (mask.height, mask.width) != size or not mask.area:
                        raise WrongAnswerError(f'a mask of {mask.height} x {mask.width}, area {mask.area}, in {size}')
                for box in target.boxes:
                    if not (np.isfinite(box).all() and 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
                        raise WrongAnswerError(f'a box {box}')

    def _check_batch(self, samples: list[Any]) -> None:
        from instructsam.core.model.config import ModelConfig
        from instructsam.train.data.collate import Collator

        if self._collator is None:
            config = ModelConfig.from_folder(CHECKPOINT)
            self._collator = Collator.from_folder(CHECKPOINT, config, branches=False, max_pixels=0, mode='consistent')
        batch = self._collator(samples)
        if not bool(batch.pixels.isfinite().all()):
            raise WrongAnswerError('pixels of a batch are not finite')

    def _scenes(self, folder: Path) -> Verdict:
        """Read every scene; check its labels."""
        from instructsam.train.data.scene_labels import SceneDataset, labels_at

        dataset = SceneDataset(self._sources(folder), random_crop=0.5)
        for index in range(min(len(dataset), 20)):
            image, scene = dataset[index]
            if image.shape[:2] != scene.ids.shape:
                raise WrongAnswerError(f'labels of {scene.ids.shape} on an image of {image.shape}')
            if not np.isfinite(scene.objects).all():
                raise WrongAnswerError('labels that are not finite')
            labels_at([scene], [(8, 8)])
        return ACCEPTED

    def _benchmark(self, example: Example, folder: Path) -> Verdict:
        """Read the benchmark; check ids, masks and errors."""
        from instructsam.core.errors import ImageError
        from instructsam.train.evaluation.readers import read_benchmark

        benchmark = example.seed.split()[0]
        images = read_benchmark(benchmark, folder, data_files.SPLITS.get(benchmark, 'val'))
        ids, errors = set(), 0
        for image in images:
            try:
                size = image.load().shape[:2]
            except ImageError:
                size = None
            for query in image.queries:
                ids.add(query.id)
                errors += bool(query.error)
                if query.error:
                    continue
                for mask in (*query.ground_truth, *([query.ignore] if query.ignore else [])):
                    if not mask.area:
                        raise WrongAnswerError('a mask without a pixel')
                    if size and not example.changes and (mask.height, mask.width) != size:
                        raise WrongAnswerError(f'a mask of {mask.height} x {mask.width} on an image of {size}')
        if len(ids) != sum(len(image.queries) for image in images):
            raise WrongAnswerError('two queries of one id')
        if errors and not example.changes:
            raise WrongAnswerError(f'{errors} valid records are broken')
        return ACCEPTED

    def _evaluate(self, example: Example, folder: Path) -> Verdict:
        """Run the benchmark."""
        import shutil

        benchmark = example.seed.split()[0]
        results = folder.parent / 'results'
        shutil.rmtree(results, ignore_errors=True)
        arguments = ['eval', benchmark, '--data', str(folder), '--split', data_files.SPLITS.get(benchmark, 'val')]
        arguments += ['--results', str(results), '--limit', str(MOST_RUN), '--max-new-tokens', '4', '--device', 'cpu']
        with use_tiny_engine():
            verdict = judge(run_command(arguments))
        if not example.changes and verdict.state != 'accepted':
            raise WrongAnswerError(f'the valid {example.seed} is refused: {verdict.message}')
        return verdict


TARGET = DataSets()
