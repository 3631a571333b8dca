"""Rows of a stage on disk: one append-only file per stage, `STAGE.jsonl`, which begins with a header.

Every line carries the CRC-32 of its row. A kill at any instant loses at most the line that was being written, which is
dropped when the file is opened again. Rows are found by their order, so that a file of 100,000 rows with masks is never
in memory as a whole.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from instructsam.core.appended_file import AppendedFile
from instructsam.core.errors import DataError, InstructSAMError
from instructsam.core.run_settings import check_settings
from instructsam.train.data_engine.rows import SCHEMA_VERSION, Row, from_json, to_json

_BEGIN, _MIDDLE, _END = b'{"crc32":"', b'","row":', b'}\n'
_ROW_AT = len(_BEGIN) + 8 + len(_MIDDLE)
_ORDER = re.compile(rb'\{"order":(\d+),')


def line_of(row: Row) -> bytes:
    """Return the line of a row."""
    text = to_json(row)
    return b'%s%08x%s%s%s' % (_BEGIN, zlib.crc32(text), _MIDDLE, text, _END)


def row_of(line: bytes) -> Row:
    """Return the row of a line of `line_of`.

    Raises:
        DataError: It is none, or damaged.
    """
    return from_json(_checked(line))


def order_of(line: bytes) -> int:
    """Return the order of the row of a line, whose other fields are not read: its checksum says that they are whole.

    Raises:
        DataError: It is not a line of `line_of`, or damaged.
    """
    match = _ORDER.match(_checked(line))
    if match is None:
        raise DataError('its row has no order')
    return int(match[1])


def _checked(line: bytes) -> bytes:
    """Return the JSON of the row of a line. Raises DataError if its checksum does not fit."""
    text = line[_ROW_AT : -len(_END)]
    if line[: len(_BEGIN)] != _BEGIN or line[len(_BEGIN) : len(_BEGIN) + 8] != b'%08x' % zlib.crc32(text):
        raise DataError('the checksum does not fit')
    return text


class StageFile:
    """The rows of one stage, read and appended by one process.

    Args:
        path: The file.
        header: Settings that decide the rows, by dotted key or nested; None accepts any header, for reading alone.

    Raises:
        OtherSettingsError: The file was started with other settings.
        DataError: There is no file (without `header`), or a line is damaged.
        StorageError: The file cannot be written.
    """

    def __init__(self, path: Path | str, header: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path)
        self._offsets: dict[int, tuple[int, int]] = {}  # order -> first byte and length of the line
        if header is None and not self.path.is_file():
            stage = self.path.stem
            raise DataError(f'{self.path} does not exist: run `instructsam engine {stage} RECIPE` first')
        self._file = AppendedFile(self.path, writes=header is not None)
        try:
            self._open(header)
        except BaseException:
            self._file.close()
            raise

    def _open(self, header: Mapping[str, Any] | None) -> None:
        self.header = None
        redo = f'recompute the rows with `instructsam engine {self.path.stem} RECIPE --redo`'
        for number, line in enumerate(self._file.lines(), start=1):
            try:
                if number == 1:
                    self.header = _header_of(line)
                else:
                    self._offsets[order_of(line)] = (self._file.size, len(line))
            except DataError as error:
                advice = 'delete the line and run the same command again, which recomputes its row'
                raise DataError(
                    f'{self.path}, line {number} is damaged ({error}): {advice if number > 1 else redo}'
                ) from error
        if header is None:
            if self.header is None:
                raise DataError(f'{self.path} has no header: run `instructsam engine {self.path.stem} RECIPE` again')
            return
        if self.header is not None:
            check_settings(self.header, header, output=self.path, advice=redo)
        self._file.drop_cut_line('its row is made again')
        if self.header is None:
            self.header = dict(header)
            self._file.append(json.dumps({'header': {'schema': SCHEMA_VERSION, **header}}).encode())

    def __len__(self) -> int:
        return len(self._offsets)

    def __contains__(self, order: int) -> bool:
        return order in self._offsets

    def orders(self) -> list[int]:
        """Return the orders of the rows, ascending."""
        return sorted(self._offsets)

    def read(self, order: int) -> Row:
        """Return a row by its order."""
        return row_of(self._file.read(*self._offsets[order]))

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows in their order."""
        return map(self.read, self.orders())

    def add(self, row: Row) -> None:
        """Append a row.

        Raises:
            StorageError: It cannot be written; the file keeps the rows before it.
        """
        if row.order in self._offsets:
            raise InstructSAMError(f'{self.path} has the row {row.order} already')
        line, first = line_of(row), self._file.size
        self._file.append(line[:-1])
        self._offsets[row.order] = (first, len(line))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> StageFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _header_of(line: bytes) -> dict[str, Any]:
    try:
        header = json.loads(line)['header']
        schema = header.pop('schema')
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f'it is not a header: {type(error).__name__}') from error
    if schema != SCHEMA_VERSION:
        raise DataError(f'its rows have the schema {schema!r}, expected {SCHEMA_VERSION}')
    return header
