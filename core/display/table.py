"""A result as a table in the terminal."""

from rich.console import Console
from rich.table import Table
from rich.text import Text


class _Console(Console):
    def on_broken_pipe(self):
        raise


def print_result(result, to_stderr=False):
    """Prints `result`'s instances, answer, timings and warning. Instances whose slot is None get no slot column."""
    console = _Console(stderr=to_stderr, highlight=False)
    if result.instances:
        console.print(_table(result))
    else:
        console.print(Text(f'no target: nothing matches {result.instruction!r}'), soft_wrap=True)
    if result.answer:
        console.print(Text(f'answer: {result.answer}'), soft_wrap=True)
    stages = ', '.join(f'{stage.replace("_", " ")} {ms:.0f}' for stage, ms in result.timings_ms.items())
    console.print(Text(f'ms: {stages}, total {sum(result.timings_ms.values()):.0f}'), soft_wrap=True)
    if result.warning:
        console.print(Text(f'WARNING: {result.warning}', style='bold yellow'))


def _table(result):
    columns = {
        'score': [f'{instance.score:.3f}' for instance in result.instances],
        'phrase': [Text(instance.phrase) for instance in result.instances],  # Text: brackets are no markup
        **(_in_meters if any(each.geometry for each in result.instances) else _in_pixels)(result.instances),
        'slot': [str(instance.slot) for instance in result.instances if instance.slot is not None],
    }
    table = Table(title=Text(f'{result.instruction} ({result.width} x {result.height} px)'), title_justify='left')
    columns = {name: cells for name, cells in columns.items() if cells}
    for name in columns:
        table.add_column(name, justify='left' if name == 'phrase' else 'right', overflow='fold')
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return table


def _in_pixels(instances):
    return {
        'box (x0 y0 x1 y1)': [' '.join(map(str, instance.box)) for instance in instances],
        'area px': [str(instance.mask.area) for instance in instances],
    }


def _in_meters(instances):
    """What a line of 80 characters has room for."""
    found = [instance.geometry for instance in instances]
    return {
        'center (x y z) m': [_joined(each.center) if each else '-' for each in found],
        'size m': [_joined(each.size_m) if each else '-' for each in found],
    }


def _joined(values):
    return ' '.join(f'{value:.3f}' for value in values)
