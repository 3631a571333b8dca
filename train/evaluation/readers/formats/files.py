"""The data set to read, and its annotation file, found by its name."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from instructsam.core.errors import DataError
from instructsam.train.evaluation.benchmarks import BENCHMARKS
from instructsam.train.evaluation.readers.formats.documents import Record
from instructsam.train.evaluation.readers.formats.images import SUBFOLDERS, ImageFolder

CONVERTED = ('{split}.json', '{benchmark}*_{split}.json')
"""Names of the annotation files that the authors of InstructSAM convert."""


@dataclass(frozen=True)
class DatasetFiles:
    """The files of a data set, and the split to read."""

    benchmark: str
    data: Path  # folder of the data set, or an annotation file
    split: str
    layouts: str  # the expected folder trees, for display
    images: Path | None = None
    split_by: str | None = None  # authors of the splits of RefCOCO to read

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of all splits of the benchmark."""
        return BENCHMARKS[self.benchmark].splits

    def annotation_file(self, *patterns: str) -> Path:
        """Return the split's file: `data` itself, the match of the first pattern that has one, or the only *.json.

        patterns: paths below `data`, with {split} and {benchmark}.

        Raises:
            DataError: No file fits, or several do.
        """
        if self.data.is_file():
            return self._checked(self.data)
        for pattern in patterns:
            if found := self.matches(pattern):
                return self._only(found)
        existing = [split for split in self.splits if any(self.matches(pattern, split) for pattern in patterns)]
        if existing:
            raise self.missing_split_error(existing)
        found = self.matches('*.json')
        if len(found) != 1:
            raise self.unknown_folder_error()
        return self._checked(found[0])

    def matches(self, pattern: str, split: str | None = None) -> list[Path]:
        """Return the files below `data` that match `pattern` for a split, by default the one to read."""
        glob = pattern.format(split=split or self.split, benchmark=self.benchmark)
        return sorted(path for path in self.data.glob(glob) if path.is_file())

    def _only(self, found: Sequence[Path]) -> Path:
        if len(found) > 1:
            names = ', '.join(str(path.relative_to(self.data)) for path in found)
            raise DataError(f'{self.data} has {names}, expected one of them. Point --data at the one to read')
        return found[0]

    def _checked(self, path: Path) -> Path:
        """Return a file whose name does not say that it is of another split."""
        for split in self.splits:
            if split != self.split and (path.stem == split or path.stem.endswith(f'_{split}')):
                raise DataError(f'{path} is named after the split {split}, not {self.split}. Is it --split {split}?')
        return path

    def missing_split_error(self, existing: Iterable[str]) -> DataError:
        """Return the error for a split that is not among the existing ones."""
        shown = ', '.join(existing) or 'none'
        return DataError(f'{self.data} has no split {self.split!r} of {self.benchmark}; it has {shown}. See --split')

    def unknown_folder_error(self) -> DataError:
        """Return the error for a folder that has none of the layouts."""
        names = sorted(entry.name for entry in self.data.iterdir())
        content = f'{", ".join(names[:8]) or "nothing in it"}{" ..." if len(names) > 8 else ""}'
        return self._layout_error(f'{self.data} has {content}')

    def unknown_records_error(self, path: Path, records: Sequence[Record]) -> DataError:
        """Return the error for an annotation file whose records are in none of the layouts."""
        return self._layout_error(f'{path} has records with the keys {", ".join(records[0]) or "(none)"}')

    def _layout_error(self, found: str) -> DataError:
        layouts = self.layouts.strip('\n').replace('SPLIT', self.split)
        return DataError(f'{found}, which is not a layout of {self.benchmark}. Expected one of these:\n{layouts}')

    def image_folder(self, names: Iterable[str], annotation_folder: Path) -> ImageFolder:
        """Return the folder of the images `names`, which are annotated in a file in `annotation_folder`."""
        top = self.data if self.data.is_dir() else self.data.parent
        between = [folder for folder in (annotation_folder, *annotation_folder.parents) if top in folder.parents]
        given = [] if self.images is None else [self.images]
        folders = (*given, top, *between, top.parent)
        return ImageFolder(names, [folder / subfolder for folder in folders for subfolder in SUBFOLDERS])
