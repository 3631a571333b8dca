"""The dataset of a mixing list: samples drawn from annotation files; broken records are logged and skipped."""

import logging
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from instructsam.core.errors import DataError
from instructsam.train.data.augmentation import Augmentation
from instructsam.train.data.mixing import Source
from instructsam.train.data.record_fields import RecordError
from instructsam.train.data.record_file import RecordFile
from instructsam.train.data.records import parse
from instructsam.train.data.sample import Sample

logger = logging.getLogger(__name__)

TOLERATED_BROKEN = 10
"""Number of broken records that never stops a run, however few records it has."""

SHOWN_REASONS = 3
"""Number of broken records that the error of a stopped run explains."""

_FINE, _BROKEN = 1, 2  # states of a record; 0: not read yet


class RecordDataset(Dataset):
    """All records of some sources, each file repeated as its source says, as samples with their images read.

    The questions of a record, and the changes of its image, are drawn from (seed, epoch, index). A record that cannot
    be used is logged and replaced by the next one. The epoch and the states of the records are in shared memory, so
    that DataLoader workers, persistent ones included, see the epoch and count broken records together.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        num_queries: int,
        seed: int = 0,
        max_broken_share: float = 0.01,
        max_phrases: int = 0,
        augmentation: Augmentation | None = None,
        dummy_phrases: float = 0.0,
    ):
        """Scan the annotation files.

        Args:
            sources: The annotation files.
            num_queries: K, the number of slots; annotations with more instances are left out.
            seed: Seed of the questions.
            max_broken_share: Largest tolerated share of broken records among the distinct records read so far.
            max_phrases: Number of phrases of a sample that reach the detector; 0: all.
            augmentation: Random changes of the images.
            dummy_phrases: Share of the turns whose answers are given as dummy phrases.

        Raises:
            DataError: If a file cannot be read, or there is no record.
        """
        self.sources = tuple(sources)
        self.num_queries = num_queries
        self.seed = seed
        self.max_broken_share = max_broken_share
        self.max_phrases = max_phrases
        self.augmentation = augmentation
        self.dummy_phrases = dummy_phrases
        self._files = [RecordFile(source.annotations) for source in self.sources]
        sizes = np.array([len(file) for file in self._files], dtype=np.int64)
        self._first_records = np.cumsum(sizes) - sizes  # number of each file's first record, counted over all files
        self._ends = np.cumsum(sizes * [source.repeat for source in self.sources])  # end of each source's indices
        if not len(self):
            raise DataError(f'no records in {", ".join(str(s.annotations) for s in self.sources) or "no sources"}')
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._states = torch.zeros(int(sizes.sum()), dtype=torch.uint8).share_memory_()
        self._reasons: deque[str] = deque(maxlen=SHOWN_REASONS)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def set_epoch(self, epoch: int) -> None:
        """Select the questions of another epoch for the same records."""
        self._epoch.fill_(epoch)

    @property
    def broken(self) -> int:
        """Number of distinct records found broken so far."""
        return int((self._states == _BROKEN).sum())

    def __getitem__(self, index: int) -> Sample:
        """Return the sample of the record at `index`, or of the next record that can be used.

        Raises:
            DataError: If too many records are broken.
        """
        if not 0 <= index < len(self):
            raise IndexError(f'index {index} of {len(self)} records')
        for unwrapped in range(index, index + len(self)):
            candidate = unwrapped % len(self)
            source, number = self._source_and_number(candidate)
            record = int(self._first_records[source]) + number
            rng = np.random.default_rng((self.seed, int(self._epoch), candidate))
            try:
                raw = self._files[source][number]
                sample = parse(raw, self.sources[source].images, self.num_queries, rng).with_pixels()
            except RecordError as error:
                self._mark_broken(record, f'record {number} of {self.sources[source].annotations}: {error}')
            else:
                self._states[record] = _FINE
                sample = sample.limit_detected(self.max_phrases, rng)
                if self.dummy_phrases:
                    sample = sample.with_dummy_phrases(self.dummy_phrases, rng)
                return sample.augmented(self.augmentation, rng) if self.augmentation else sample
        raise DataError(f'not one record can be used. The last ones: {"; ".join(self._reasons)}')

    def _source_and_number(self, index: int) -> tuple[int, int]:
        """Return the source of an index and the number of the record in its file."""
        source = int(np.searchsorted(self._ends, index, side='right'))
        start = int(self._ends[source - 1]) if source else 0
        return source, (index - start) % len(self._files[source])

    def _mark_broken(self, record: int, reason: str) -> None:
        self._reasons.append(reason)
        if self._states[record] == _BROKEN:
            return
        self._states[record] = _BROKEN
        logger.warning('skipped %s', reason)
        broken, seen = self.broken, int((self._states > 0).sum())
        if broken > max(TOLERATED_BROKEN, self.max_broken_share * seen):
            raise DataError(
                f'{broken} of {seen} records are broken, more than a share of {self.max_broken_share:g}. '
                f'The last ones: {"; ".join(self._reasons)}'
            )
