"""Prints the tables of a report on a terminal, from `report.json` alone."""

import io
from collections.abc import Iterator

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from components.report.formats import fixed, is_green, signed, with_spread
from components.report.results import (
    CellResult,
    FigureResult,
    Report,
    RowResult,
    TableResult,
    Value,
)

MINIATURE = (
    "Miniature: another data set and backbone than the paper's; compare the order of the rows only."
)


def summary_table_text(report: Report, width: int = 100) -> str:
    """Return as plain text what `print_summary` prints.

    Args:
        report: As `components.report.results.read_report` gives it.
        width: Characters for the tables.
    """
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    print_summary(report, console)
    assert isinstance(console.file, io.StringIO)
    lines = (line.rstrip() for line in console.file.getvalue().splitlines())
    return "\n".join(lines) + "\n"


def print_summary(report: Report, console: Console) -> None:
    """Print the tables: published, measured, difference, and the commands that fill the rest.

    Commands are longer than a narrow terminal at times, and still never broken, so
    that they can be copied.
    """
    console.print(_summary(report), crop=False)


def _summary(report: Report) -> RenderableType:
    parts: list[RenderableType] = []
    if not report.comparable:
        parts += [Text(MINIATURE, style="italic"), Text()]
    for table in report.tables:
        parts += _table(table, report.comparable)
    for figure in report.figures:
        parts += _figure(figure)
    return Group(*parts)


def _table(table: TableResult, comparable: bool) -> Iterator[RenderableType]:
    yield _heading(table.title, table.section)
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    grid.add_column(overflow="fold")
    if len(table.columns) > 1:
        grid.add_column(overflow="fold")
    if len(table.metrics) > 1:
        grid.add_column(overflow="fold")
    headings = ["measured", "trials"]
    if table.printed:
        headings = ["published", "measured", *(["difference"] if comparable else []), "trials"]
    for heading in headings:
        grid.add_column(heading, justify="right", overflow="fold", min_width=len(heading))
    for line in _lines(table, comparable):
        grid.add_row(*line)
    yield grid
    for order in table.orders:
        where = f" ({order.column})" if len(table.columns) > 1 else ""
        yield Text(f"order by {order.metric}{where}: {order.measured}", style="dim")
        if order.published:
            yield Text(f"  the paper's: {order.published}", style="dim")
    for comparison in table.comparisons:
        where = f"{comparison.column}: " if len(table.columns) > 1 else ""
        yield Text(f"{where}{comparison.words}", style="bold" if comparison.told_apart else "")
    yield from _remarks(table)
    yield Text()


def _lines(table: TableResult, comparable: bool) -> Iterator[list[Text]]:
    for index, column in enumerate(table.columns):
        for row in table.rows:
            cell = row.cells[index]
            for metric, value in zip(table.metrics, cell.values, strict=True):
                first = metric is table.metrics[0]
                line = [Text(row.name if first else "")]
                line += [Text(column.name if first else "")] if len(table.columns) > 1 else []
                line += [Text(metric.name)] if len(table.metrics) > 1 else []
                numbers = _numbers(row, cell, value, comparable)
                line += numbers if table.printed else numbers[1:2]
                line += [_trials(cell) if first else Text()]
                yield line


def _numbers(row: RowResult, cell: CellResult, value: Value, comparable: bool) -> list[Text]:
    published = Text(with_spread(value.published, value.published_spread, value.decimals))
    measured = Text(with_spread(value.measured, value.deviation, value.decimals), style="bold")
    if value.measured is None:
        reasons = {"unobtainable": "not obtainable", "empty": "not measured"}
        measured = Text(reasons.get(cell.state, "missing"), style="dim")
    numbers = [
        _with_gap(published, value.published_gap, row, value.decimals),
        _with_gap(measured, value.measured_gap, row, value.decimals),
    ]
    if comparable:
        known = value.difference is not None
        numbers.append(Text(signed(value.difference or 0.0, value.decimals) if known else ""))
    return numbers


def _with_gap(number: Text, gap: float | None, row: RowResult, decimals: int) -> Text:
    """Add the gap to the supervised counterpart in brackets, as the paper does."""
    if row.counterpart is None or gap is None:
        return number
    style = "green" if is_green(gap, decimals) else "dim"
    return Text.assemble(number, (f" ({signed(gap, decimals)})", style))


def _trials(cell: CellResult) -> Text:
    if cell.state == "unobtainable":
        return Text()
    return Text(f"{len(cell.trials)} of {cell.wanted}", style="dim")


def _remarks(table: TableResult) -> Iterator[Text]:
    """Yield why rows are missing, what trials lack, and the commands that fill the cells."""
    if table.mixed:
        yield Text(f"Not comparable, of different model libraries: {table.made_by}", "bold yellow")
    elif table.libraries:
        yield Text(f"model library: {table.made_by}", "dim")
    if table.differ_in_size:
        yield Text(f"encoders of different sizes: {table.encoded_by}", "yellow")
    elif table.encoders:
        yield Text(f"encoder: {table.encoded_by}", "dim")
    if table.computed:
        yield Text(f"trained in {table.computed}", "dim")
    commands: dict[str, None] = {}
    for row in table.rows:
        if row.unobtainable:
            yield Text(f"{row.name}: {row.unobtainable}", style="dim")
        for cell in row.cells:
            for note in cell.notes:
                yield Text(f"{row.name}: {note}", style="yellow")
            if cell.command:
                commands[cell.command] = None
    if commands:
        yield Text("To fill the cells:")
        yield from (_command(command) for command in commands)


def _figure(figure: FigureResult) -> Iterator[RenderableType]:
    yield _heading(figure.title, figure.section)
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    grid.add_column(overflow="fold")
    for heading in (figure.x_name, figure.y_name, "best"):
        grid.add_column(heading, justify="right", overflow="fold", min_width=len(heading))
    for curve in figure.curves:
        if curve.points:
            x, y = curve.end
            numbers = (Text(f"{x:g}"), Text(fixed(y, 1), "bold"), Text(fixed(curve.best[1], 1)))
        else:
            numbers = (Text(), Text(curve.missing or "", "dim"), Text())
        grid.add_row(Text(curve.name), *numbers)
    yield grid
    if figure.command:
        yield Text("To measure the missing curves:")
        yield _command(figure.command)
    yield Text()


def _heading(title: str, section: str) -> Text:
    parts = (title, "bold"), (f"  {section}", "dim")
    return Text.assemble(*parts, no_wrap=True, overflow="ignore")


def _command(command: str) -> Text:
    return Text(f"  {command}", style="cyan", no_wrap=True, overflow="ignore")
