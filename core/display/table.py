"""Prints results and other figures as tables in the terminal."""

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from instructsam.core.result import Instance, Result


class _Console(Console):
    """A console that lets the command line handle a closed pipe."""

    def on_broken_pipe(self) -> None:
        raise


def print_result(result: Result, *, to_stderr: bool = False) -> None:
    """Print the instances, answer, timings and warning of a result.

    Instances without a slot (None) get no slot column. Positions replace boxes if an instance has a geometry.
    """
    console = _Console(stderr=to_stderr, highlight=False)
    if result.instances:
        console.print(_table(result))
    elif result.status == 'error':
        console.print(Text(f'no answer about {result.instruction!r}'), soft_wrap=True)
    else:
        console.print(Text(f'no target: nothing matches {result.instruction!r}'), soft_wrap=True)
    if result.ended_by:
        console.print(Text(f'the answer was {result.ended_by}', style='bold yellow'), soft_wrap=True)
    if result.answer:
        console.print(Text(f'answer: {result.answer}'), soft_wrap=True)
    steps = ', '.join(f'{step.replace("_", " ")} {ms:.0f}' for step, ms in result.timings_ms.items())
    console.print(Text(f'ms: {steps}, total {sum(result.timings_ms.values()):.0f}'), soft_wrap=True)
    if result.usage:
        numbers = ', '.join(f'{name.replace("_", " ")} {number}' for name, number in result.usage.items())
        console.print(Text(numbers), soft_wrap=True)
    if result.warning:
        console.print(Text(f'WARNING: {result.warning}', style='bold yellow'))


def print_table(table: Table, notes: Sequence[str]) -> None:
    """Print a table and the lines below it, a warning in yellow."""
    console = _Console(highlight=False)
    console.print(table)
    for note in notes:
        console.print(Text(note, style='bold yellow' if note.startswith('WARNING') else ''), soft_wrap=True)


def _table(result: Result) -> Table:
    instances = result.instances
    has_geometry = any(instance.geometry for instance in instances)
    columns = {
        'score': [f'{instance.score:.3f}' for instance in instances],
        'phrase': [Text(instance.phrase) for instance in instances],  # Text does not interpret brackets as markup
        **(_columns_in_meters(instances) if has_geometry else _columns_in_pixels(instances)),
        'slot': [str(instance.slot) for instance in instances if instance.slot is not None],
    }
    columns = {name: cells for name, cells in columns.items() if cells}
    table = Table(title=Text(f'{result.instruction} ({result.width} x {result.height} px)'), title_justify='left')
    for name in columns:
        table.add_column(name, justify='left' if name == 'phrase' else 'right', overflow='fold')
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return table


def _columns_in_pixels(instances: Sequence[Instance]) -> dict[str, list[str]]:
    return {
        'box (x0 y0 x1 y1)': [' '.join(map(str, instance.box)) for instance in instances],
        'area px': [str(instance.mask.area) for instance in instances],
    }


def _columns_in_meters(instances: Sequence[Instance]) -> dict[str, list[str]]:
    """Return as many columns as fit on a line of 80 characters."""
    geometries = [instance.geometry for instance in instances]
    return {
        'center (x y z) m': [_joined(geometry.center) if geometry else '-' for geometry in geometries],
        'size m': [_joined(geometry.size_m) if geometry else '-' for geometry in geometries],
    }


def _joined(values: np.ndarray) -> str:
    return ' '.join(f'{value:.3f}' for value in values)
