"""What a person watches in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import MissingPackage

if TYPE_CHECKING:
    from .result import Result


def progress_bar(total: int, done: int) -> Any:
    """A rich progress bar of environment steps, already started.

    Raises:
        MissingPackage: rich is not installed.
    """
    try:
        from rich import progress
    except ImportError as error:
        raise MissingPackage("rich", "cli", "progress bars") from error
    bar = progress.Progress(
        progress.BarColumn(None),  # all this fits 80 columns, where the bar shrinks
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[speed]:.0f} steps/s"),
        progress.TextColumn("{task.fields[state]}"),
        progress.TimeRemainingColumn(),
        speed_estimate_period=600,
    )
    bar.add_task("", total=total, completed=done, speed=0.0, state="")
    bar.start()
    return bar


def print_result(result: Result) -> None:
    """A table and the sentence that a user wants."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError as error:
        raise MissingPackage("rich", "cli", "tables in the terminal") from error
    table = Table(show_header=False)
    for row in result.rows():
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(result.sentence())
