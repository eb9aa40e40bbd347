"""What a person sees on stderr while a job runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from comfyserve.cli.progress_words import clock, percent, printable, time_left, what_runs
from comfyserve.events import Event, Noted, ProgressMade, StatusChanged
from comfyserve.jobs import JobStatus, Progress

MANY_NODES = 20
"""From here on a plain line for every node would be a flood."""


class Display(Protocol):
    """Shows the events of one job as they come."""

    def show(self, event: Event) -> None: ...


@contextmanager
def display(*, quiet: bool = False) -> Iterator[Display]:
    """The display that fits: a live bar on a terminal, plain lines elsewhere, or nothing."""
    if quiet:
        yield Silence()
    elif sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown"):
        from comfyserve.cli.live_bar import live_bar

        with live_bar() as bar:
            yield bar
    else:
        yield PlainLines(sys.stderr)


class Silence:
    """Shows nothing."""

    def show(self, event: Event) -> None:
        return


class PlainLines:
    """Writes a line when another node runs or another tenth is done, and no more.

    The end of a node is no news: the line of the next one tells how far the job is.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._node: str | None = None
        self._tenth = 0
        self._waiting: int | None = None

    def show(self, event: Event) -> None:
        match event:
            case ProgressMade(progress=progress) if self._is_news(progress):
                self._write(progress_line(progress))
            case StatusChanged(status=JobStatus.QUEUED, queue_position=int(place)):
                if place != self._waiting:
                    self._waiting = place
                    self._write(waiting_line(place))
            case Noted(message=message):
                self._write(printable(message))

    def _is_news(self, progress: Progress) -> bool:
        tenth = int(progress.value * 10)
        if progress.nodes_total > MANY_NODES:
            news = tenth > self._tenth
        else:
            other_node = progress.current_node not in (None, self._node)
            news = other_node or (tenth > self._tenth and _is_amid(progress))
        if news:
            self._tenth, self._node = tenth, progress.current_node
        return news

    def _write(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


def _is_amid(progress: Progress) -> bool:
    """Whether a node is at work, with steps to come; or all is done."""
    amid = None not in (progress.step, progress.steps) and progress.step != progress.steps
    return amid or progress.value >= 1


def progress_line(progress: Progress) -> str:
    """One line that says it all: `` 45 %  KSampler, step 3 of 22; 0:12, 0:20 to 0:35 left``."""
    times = ", ".join(filter(None, (clock(progress.elapsed), time_left(progress.remaining))))
    return f"{percent(progress):3} %  {'; '.join(filter(None, (what_runs(progress), times)))}"


def waiting_line(place: int) -> str:
    """Where the job waits."""
    return f"waiting in the server's queue, place {place}"
