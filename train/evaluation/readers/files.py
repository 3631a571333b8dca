"""What is asked for, and which annotation file has it: found by its name."""

from dataclasses import dataclass
from pathlib import Path

from instructsam.core.errors import DataError
from instructsam.train.evaluation.benchmarks import BENCHMARKS
from instructsam.train.evaluation.readers.images import PLACES, Pictures

CONVERTED = ('{split}.json', '{benchmark}*_{split}.json')  # names of what the authors of InstructSAM convert


@dataclass(frozen=True)
class Request:
    """What is to be read."""

    benchmark: str
    data: Path  # a folder, or an annotation file
    split: str
    layouts: str  # the trees that are expected, for people
    images: Path | None = None
    split_by: str | None = None  # whose splits, of RefCOCO

    @property
    def splits(self):
        """Names of all splits that the benchmark has."""
        return BENCHMARKS[self.benchmark].splits

    def annotations(self, *patterns):
        """The split's file: `data` itself, the one that the first fitting pattern names, or the only *.json there.

        patterns: of paths below `data`, with {split} and {benchmark}. Raises DataError.
        """
        if self.data.is_file():
            return self._checked(self.data)
        for pattern in patterns:
            if found := self.matches(pattern):
                return self._only(found)
        if there := [split for split in self.splits if any(self.matches(pattern, split) for pattern in patterns)]:
            raise self.no_split(there)
        found = self.matches('*.json')
        if len(found) != 1:
            raise self.unknown()
        return self._checked(found[0])

    def matches(self, pattern, split=None):
        """Files below `data` that `pattern` names for a split, by default the one that is to be read."""
        named = pattern.format(split=split or self.split, benchmark=self.benchmark)
        return sorted(path for path in self.data.glob(named) if path.is_file())

    def _only(self, found):
        if len(found) > 1:
            names = ', '.join(str(path.relative_to(self.data)) for path in found)
            raise DataError(f'{self.data} has {names}, expected one of them. Point --data at the one to read')
        return found[0]

    def _checked(self, path):
        for split in self.splits:
            if split != self.split and (path.stem == split or path.stem.endswith(f'_{split}')):
                raise DataError(f'{path} is named after the split {split}, not {self.split}. Is it --split {split}?')
        return path

    def no_split(self, there):
        """The DataError for a split that is not among those `there`."""
        has = ', '.join(there) or 'none'
        return DataError(f'{self.data} has no split {self.split!r} of {self.benchmark}; it has {has}. See --split')

    def unknown(self, path=None, records=()):
        """The DataError for a folder, or a file with `records`, that has none of the layouts."""
        if path is None:
            names = sorted(entry.name for entry in self.data.iterdir())
            found = f'{self.data} has {", ".join(names[:8]) or "nothing in it"}{" ..." if len(names) > 8 else ""}'
        else:
            found = f'{path} has records with the keys {", ".join(records[0]) or "(none)"}'
        trees = self.layouts.strip('\n').replace('SPLIT', self.split)
        return DataError(f'{found}, which is no layout of {self.benchmark}. Expected is one of these:\n{trees}')

    def pictures(self, names, annotated):
        """Pictures: where images `names` lie, which are annotated in a file of the folder `annotated`."""
        top = self.data if self.data.is_dir() else self.data.parent
        between = [folder for folder in (annotated, *annotated.parents) if top in folder.parents]
        given = [] if self.images is None else [self.images]
        return Pictures(names, [folder / place for folder in (*given, top, *between, top.parent) for place in PLACES])
