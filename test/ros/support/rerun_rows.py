"""Rows of a Rerun recording, as Rerun's own reader has them."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest


class Row(NamedTuple):
    """The values of an entity at one time."""

    entity: str
    is_static: bool
    cells: dict[str, Any]  # scalars of pyarrow, by the name of their column


def open_recording(path):
    """Return Rerun's reader of a file; without the extra, the test is skipped."""
    return pytest.importorskip('rerun.chunk', reason='needs the extra rerun').RrdReader(path)


def rows(path) -> Iterator[Row]:
    """Yield the rows of all entities as they were logged; the chunks of a file may be in another order."""
    found = []
    for chunk in open_recording(path).stream().to_chunks():
        batch = chunk.to_record_batch()
        for row in range(batch.num_rows):
            cells = {name: batch.column(name)[row] for name in batch.schema.names}
            found.append(Row(chunk.entity_path, chunk.is_static, cells))
    return iter(sorted(found, key=lambda row: row.cells['rerun.controls.RowId'].as_py()))


def components(row: Row) -> dict[str, Any]:
    """Return the values of a row, by the names of their components."""
    return {name.split(':')[-1]: cell.as_py() for name, cell in row.cells.items() if ':' in name}
