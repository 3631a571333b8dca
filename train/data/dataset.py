"""A mixing list of annotation files as one dataset: record files without parsing them whole, broken records skipped."""

import json
import logging
import mmap
import re
from array import array
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from instructsam.core.errors import DataError
from instructsam.train.data.record_fields import RecordError
from instructsam.train.data.records import parse

logger = logging.getLogger(__name__)

FEW_BROKEN = 10  # so many broken records stop no run, however few there are
REASONS = 3  # of broken records, shown when a run stops

_EMPTY = re.compile(rb'(?:\xef\xbb\xbf)?\s*\[\s*\]\s*')
_OPENING = re.compile(rb'(?:\xef\xbb\xbf)?\s*(\[\s*)?')
_SEPARATOR = re.compile(rb'\s*([,\]])\s*')
_SPACE = re.compile(rb'\s*')
_SCALAR = re.compile(rb'[^\s"\[\]{},:]+')
_TOKEN = re.compile(  # the next text or bracket; the last is a text without an end
    rb'[^"\[\]{}]*(?:"[^"\\]*(?:\\.[^"\\]*)*"|([\[{])|([\]}])|("))', re.DOTALL
)


@dataclass(frozen=True)
class Source:
    """An annotation file, the folder where its image paths start, and how many times an epoch reads it."""

    annotations: Path
    images: Path
    repeat: int = 1


def mixing_list(entries, folder):
    """Sources from mappings {annotations, images, repeat} as YAML gives them; relative paths start at `folder`.

    Raises DataError.
    """
    if not isinstance(entries, (list, tuple)) or not entries:
        raise DataError(f'a mixing list has entries of annotations, images and repeat, got {entries!r}')
    return [_source(entry, Path(folder), f'entry {number} of the mixing list') for number, entry in enumerate(entries)]


def _source(entry, folder, where):
    if not isinstance(entry, dict):
        raise DataError(f'{where} has the keys annotations, images and repeat, got {entry!r}')
    unknown = [str(key) for key in entry if key not in ('annotations', 'images', 'repeat')]
    if unknown:
        raise DataError(f'{where} has unknown keys: {", ".join(unknown)}. Known: annotations, images, repeat')
    for key in ('annotations', 'images'):
        if not isinstance(entry.get(key), (str, Path)):
            raise DataError(f'{where} has a path under {key}, got {entry.get(key)!r}')
    repeat = entry.get('repeat', 1)
    if type(repeat) is not int or repeat < 1:
        raise DataError(f'{where}: repeat is a whole number from 1 on, got {repeat!r}')
    source = Source(folder / entry['annotations'], folder / entry['images'], repeat)
    if not source.annotations.is_file():
        raise DataError(f'{where}: there is no file {source.annotations}')
    if not source.images.is_dir():
        raise DataError(f'{where}: there is no folder {source.images}')
    return source


class RecordFile:
    """The elements of a JSON array, or of JSON lines, each parsed when it is asked for.

    The file is scanned once for where its elements start and end; what is in them is looked at no closer. Other
    processes may use a copy, which maps the file anew.
    """

    def __init__(self, path):
        """Raises DataError: no such file, neither form, or cut short."""
        self.path = Path(path)
        self._bytes = None
        self.bounds = np.array(_scan(self.path, self._mapped()), dtype=np.int64).reshape(-1, 2)  # bytes

    def __len__(self):
        return len(self.bounds)

    def __getitem__(self, number):
        start, end = self.bounds[number]
        try:
            return json.loads(self._mapped()[start:end])
        except (ValueError, RecursionError) as error:
            raise RecordError(f'no JSON: {error}') from error

    def __getstate__(self):
        return {**vars(self), '_bytes': None}

    def _mapped(self):
        if self._bytes is None:
            try:
                with open(self.path, 'rb') as file:
                    self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:  # ValueError: an empty file
                raise DataError(f'{self.path} cannot be read: {getattr(error, "strerror", None) or error}') from error
        return self._bytes


def _scan(path, data):
    """Start, end, start, end, ... of the elements in the bytes `data`."""
    bounds = array('q')
    if _EMPTY.fullmatch(data):
        return bounds
    opening = _OPENING.match(data)
    at, is_array = opening.end(), opening[1] is not None
    if not is_array and data[at : at + 1] != b'{':
        raise DataError(f'{path} is no JSON array of records, nor JSON lines: it starts with {data[at : at + 20]!r}')
    more = True
    while more:
        end = _element_end(data, at)
        separator = end and (_SEPARATOR if is_array else _SPACE).match(data, end)
        if not separator:
            raise DataError(f'{path} is cut short or no JSON: see record {len(bounds) // 2}, from byte {at:,} on')
        bounds.extend((at, end))
        at = separator.end()
        more = separator[1] == b',' if is_array else at < len(data)
    if at < len(data):
        raise DataError(f'{path} goes on behind its array: {data[at : at + 20]!r}')
    if not is_array and len(bounds) == 2 and path.suffix != '.jsonl':
        raise DataError(f'{path} holds one JSON object, not an array of records')
    return bounds


def _element_end(data, start):
    """Where the JSON value that starts at `start` ends; None where none does."""
    scalar = _SCALAR.match(data, start)
    if scalar:
        return scalar.end()
    depth = 0
    if data[start : start + 1] in (b'"', b'[', b'{'):
        for token in _TOKEN.finditer(data, start):
            kind = token.lastindex
            if kind == 3:
                break
            if kind:
                depth += 1 if kind == 1 else -1
            if depth == 0:
                return token.end()
    return None


class Mix(Dataset):
    """All records of some sources, each file as many times as it says, as samples with their images read.

    A record's questions are drawn from (seed, epoch, index). One that cannot be used is logged, and the next takes its
    place. Epoch and counts are in shared memory: a DataLoader's workers, also persistent ones, see and count together.
    """

    def __init__(self, sources, num_queries, seed=0, max_broken_share=0.01, max_phrases=0):
        """num_queries: K; max_broken_share: of the distinct records read so far; max_phrases: of a sample that reach
        the detector, 0: all. Raises DataError.
        """
        self.sources = tuple(sources)
        self.num_queries = num_queries
        self.seed = seed
        self.max_broken_share = max_broken_share
        self.max_phrases = max_phrases
        self._files = [RecordFile(source.annotations) for source in self.sources]
        sizes = np.array([len(file) for file in self._files], dtype=np.int64)
        self._firsts = np.cumsum(sizes) - sizes  # of each file's records among all of them
        self._ends = np.cumsum(sizes * [source.repeat for source in self.sources])  # index behind each source
        if not len(self):
            raise DataError(f'no records in {", ".join(str(s.annotations) for s in self.sources) or "no sources"}')
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._state = torch.zeros(int(sizes.sum()), dtype=torch.uint8).share_memory_()  # a record: 1 fine, 2 broken
        self._reasons = deque(maxlen=REASONS)

    def __len__(self):
        return int(self._ends[-1]) if len(self._ends) else 0

    def set_epoch(self, epoch):
        """Other questions for the same records."""
        self._epoch.fill_(epoch)

    @property
    def broken(self):
        """Distinct records found broken so far."""
        return int((self._state == 2).sum())

    def __getitem__(self, index):
        """The Sample of the record at `index`, or of the next one that can be used. Raises DataError: too few can."""
        if not 0 <= index < len(self):
            raise IndexError(f'index {index} of {len(self)} records')
        for taken in range(index, index + len(self)):
            source, number = self._place(taken % len(self))
            record = int(self._firsts[source]) + number
            rng = np.random.default_rng((self.seed, int(self._epoch), taken % len(self)))
            try:
                raw = self._files[source][number]
                sample = parse(raw, self.sources[source].images, self.num_queries, rng).with_pixels()
            except RecordError as error:
                self._note(record, f'record {number} of {self.sources[source].annotations}: {error}')
            else:
                self._state[record] = 1
                return sample.choose(self.max_phrases, rng)
        raise DataError(f'not one record can be used. The last: {"; ".join(self._reasons)}')

    def _place(self, index):
        """(source, number of the record in its file) of an index."""
        source = int(np.searchsorted(self._ends, index, side='right'))
        start = int(self._ends[source - 1]) if source else 0
        return source, (index - start) % len(self._files[source])

    def _note(self, record, reason):
        self._reasons.append(reason)
        if self._state[record] == 2:
            return
        self._state[record] = 2
        logger.warning('skipped %s', reason)
        broken, seen = self.broken, int((self._state > 0).sum())
        if broken > max(FEW_BROKEN, self.max_broken_share * seen):
            raise DataError(
                f'{broken} of {seen} records are broken, more than a share of {self.max_broken_share:g}. '
                f'The last: {"; ".join(self._reasons)}'
            )
