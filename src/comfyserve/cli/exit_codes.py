"""How a command ends: one sentence on stderr where something is wrong, and an exit code."""

from __future__ import annotations

import asyncio
import signal
import sys
import warnings
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from comfyserve import denials, errors, refusals
from comfyserve.cli.progress_words import printable
from comfyserve.cli.streams import lost_words

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
INTERRUPTED: Final = 130
TERMINATED: Final = 143


def exit_code_of(
    work: Coroutine[Any, Any, None],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> int:
    """Run *work* to its end and return the exit code; what went wrong is said on stderr.

    Ctrl-C cancels the work, which may clean up; a second one does not wait for that.
    """
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(_ended_by_signals(work))
    except KeyboardInterrupt:
        # A second Ctrl-C leaves wherever the work just was, also between a call and its start.
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        return INTERRUPTED
    except asyncio.CancelledError:
        return TERMINATED
    except errors.ComfyServeError as error:
        for line in str(error).splitlines():
            print(printable(line), file=sys.stderr)
        return code_for(error)
    sys.stdout.flush()
    if (lost := lost_words()) is not None:
        print(lost, file=sys.stderr)
        return FAILED
    return DONE


def code_for(error: errors.ComfyServeError) -> int:
    """The exit code that tells a script what kind of error this is."""
    match error:
        case errors.InvalidInputs() | errors.WorkflowUnreadable() | errors.GraphInvalid():
            return USAGE
        case errors.InvalidAddress() | refusals.SettingsInvalid() | denials.AddressUnsafe():
            return USAGE
        case denials.InvalidRequest():
            return USAGE
        case errors.RequestRefused(refusal=refusals.WorkflowNameRefused.code):
            return USAGE
        case errors.RequestRefused(refusal=errors.WorkflowUnreadable.code):
            return USAGE
        case errors.BackendUnreachable() | errors.BackendRefused() | errors.BackendAnswerInvalid():
            return UNREACHABLE
        case errors.NoComfyserve() | errors.RequestRefused(refusal=denials.Unauthorized.code):
            return UNREACHABLE
        case errors.JobCanceled():
            return INTERRUPTED
        case _:
            return FAILED


async def _ended_by_signals(work: Coroutine[Any, Any, None]) -> None:
    # Ctrl-C is asyncio's own; a closed terminal and `kill` should clean up as well.
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if task and number and signal.getsignal(number) == signal.SIG_DFL:
            with suppress(NotImplementedError):  # on Windows nobody can ask so politely
                loop.add_signal_handler(number, task.cancel)
    await work
