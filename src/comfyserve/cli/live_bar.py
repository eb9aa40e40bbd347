"""The bar on a terminal: one over the whole job, with the node that runs, and the time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task
from rich.table import Column
from rich.text import Text

from comfyserve.cli.display import waiting_line
from comfyserve.cli.progress_words import clock, printable, time_left, what_runs
from comfyserve.events import Event, Noted, ProgressMade, StatusChanged
from comfyserve.jobs import JobStatus

ENOUGH_FOR_A_BAR = 60
"""Columns below which the words and times need all the room there is."""


@contextmanager
def live_bar(console: Console | None = None) -> Iterator[LiveBar]:
    """A bar on *console*, or on stderr; it is gone afterwards."""
    bar = LiveBar(console or Console(stderr=True))
    with bar.drawing:
        yield bar


class LiveBar:
    """Draws the latest progress, and lets the clock go on between two events."""

    def __init__(self, console: Console) -> None:
        self._heard_at = time.monotonic()
        self._remaining: tuple[float, float] | None = None
        bar = [BarColumn(bar_width=30)] if console.width >= ENOUGH_FOR_A_BAR else []
        self.drawing = Progress(
            _Percent(),
            *bar,
            _Times(self),
            _Words(),
            console=console,
            transient=True,
            # Paths go to stdout, wherever that leads; the bar must not draw them to itself.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self.drawing.add_task("", total=1.0)

    def show(self, event: Event) -> None:
        match event:
            case ProgressMade(progress=progress):
                self._heard_at, self._remaining = time.monotonic(), progress.remaining
                self._update(what_runs(progress), progress.value)
            case StatusChanged(status=JobStatus.QUEUED, queue_position=int(place)):
                self._update(waiting_line(place))
            case StatusChanged(status=JobStatus.CANCELING):
                self._update("canceling")
            case Noted(message=message):
                self.drawing.console.print(printable(message), markup=False, highlight=False)

    def time_left(self) -> str:
        """What remains by now; the last word was some time ago."""
        if self._remaining is None:
            return ""
        passed = time.monotonic() - self._heard_at
        least, most = self._remaining
        return time_left((max(0.0, least - passed), max(0.0, most - passed)))

    def _update(self, words: str, value: float | None = None) -> None:
        self.drawing.update(self._task, description=words, completed=value)


class _Percent(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{int(task.percentage):3} %")


class _Words(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.description, overflow="ellipsis", no_wrap=True)


class _Times(ProgressColumn):
    def __init__(self, bar: LiveBar) -> None:
        super().__init__(Column(no_wrap=True))  # where room is short, the words give way
        self._bar = bar

    def render(self, task: Task) -> Text:
        times = (clock(task.elapsed or 0.0), self._bar.time_left())
        return Text(", ".join(filter(None, times)), style="dim", no_wrap=True)
