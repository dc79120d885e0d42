"""Tables that stay readable where the terminal is narrow.

Columns go by priority; a remark that has no room beside its row goes below it.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

MIN_REMARK = 52
"""A remark column narrower than this would be broken over many lines."""

_GAP = 2
_INDENT = "    "


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column.

    Attributes:
        name: Its heading.
        right: Numbers, aligned right.
        rank: 0 stays whatever happens; of the others the highest number goes first.
    """

    name: str
    right: bool = False
    rank: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row.

    Attributes:
        cells: Text per column.
        remark: A sentence about the row.
        style: Of the whole row.
        styles: Of single cells, by number of the column.
    """

    cells: Sequence[str]
    remark: str = ""
    style: str = ""
    styles: Sequence[tuple[int, str]] = ()


def table(
    columns: Sequence[Column],
    rows: Sequence[Row],
    *,
    width: int,
    remark: str = "",
    title: str | None = None,
) -> RenderableType:
    """Lay rows out.

    Args:
        columns: In their order.
        rows: Their cells.
        width: Of the terminal.
        remark: Heading of the remarks; empty when there are none.
        title: Above the table.
    """
    kept, used = _fit(columns, rows, width)
    if remark and width - used - _GAP < MIN_REMARK:
        return _with_lines_below(columns, rows, kept, width, title)
    made = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, _GAP - 1, 0, 0),
    )
    for index in kept:
        made.add_column(
            columns[index].name,
            justify="right" if columns[index].right else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    if remark:
        made.add_column(remark, overflow="fold")
    for row in rows:
        cells = [_cell(row, index) for index in kept]
        made.add_row(*cells, *([row.remark] if remark else []), style=row.style)
    return made


def _cell(row: Row, index: int) -> Text:
    return Text(row.cells[index], style=dict(row.styles).get(index, ""))


def _fit(columns: Sequence[Column], rows: Sequence[Row], width: int) -> tuple[list[int], int]:
    """Indices of the columns that fit, and the width that they take."""
    widths = _widths(columns, rows)
    kept = list(range(len(columns)))
    while True:
        used = sum(widths[index] + _GAP for index in kept)
        out = max(kept, key=lambda index: columns[index].rank)
        if used <= width or columns[out].rank == 0:
            return kept, used
        kept.remove(out)


def _widths(columns: Sequence[Column], rows: Sequence[Row]) -> list[int]:
    return [
        max(len(column.name), *(len(row.cells[index]) for row in rows), 0)
        for index, column in enumerate(columns)
    ]


def _with_lines_below(
    columns: Sequence[Column],
    rows: Sequence[Row],
    kept: Sequence[int],
    width: int,
    title: str | None,
) -> RenderableType:
    widths = _widths(columns, rows)

    def aligned(index: int, text: str) -> str:
        return text.rjust(widths[index]) if columns[index].right else text.ljust(widths[index])

    text = Text(f"{title}\n\n" if title else "")
    text.append("  ".join(aligned(index, columns[index].name) for index in kept), style="bold")
    for row in rows:
        text.append("\n")
        styles = dict(row.styles)
        for index in kept:
            text.append(aligned(index, row.cells[index]), style=styles.get(index, row.style))
            text.append("  ")
        text.rstrip()
        for line in textwrap.wrap(row.remark, max(20, width - len(_INDENT))):
            text.append(f"\n{_INDENT}{line}", style="dim")
    return text
