"""How far a job is, said in words that fit on a line."""

from __future__ import annotations

from comfyserve.jobs import Progress

MESSAGE_LENGTH = 60
"""Letters of a node's own message that fit on a line beside the rest."""


def what_runs(progress: Progress) -> str:
    """The current node, its own count, and what it says: ``KSampler, step 3 of 22``."""
    name = progress.current_node_title or progress.current_node_class or progress.current_node
    if name is None:
        return ""
    words = [printable(name)]
    if progress.step is not None and progress.steps:
        words.append(f"step {progress.step} of {progress.steps}")
    if progress.message:
        words.append(printable(progress.message)[:MESSAGE_LENGTH])
    return ", ".join(words)


def time_left(remaining: tuple[float, float] | None) -> str:
    """A range of seconds as a person says it: ``0:20 to 0:35 left``.

    >>> time_left((20.2, 34.9))
    '0:20 to 0:35 left'
    >>> time_left((3.1, 3.2))
    '0:03 left'
    """
    if remaining is None:
        return ""
    least, most = (clock(seconds) for seconds in remaining)
    return f"{least} left" if least == most else f"{least} to {most} left"


def clock(seconds: float) -> str:
    """Seconds as a clock shows them.

    >>> clock(75), clock(3725)
    ('1:15', '1:02:05')
    """
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def percent(progress: Progress) -> int:
    """The part that is done; 100 only when all of it is."""
    return int(progress.value * 100)


def printable(text: str) -> str:
    """*text* on one line and without anything that would steer a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
