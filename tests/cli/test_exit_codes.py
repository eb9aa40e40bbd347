"""How a command ends when a person will not wait for it."""

from __future__ import annotations

import subprocess
import sys

INTERRUPTED_ANYWHERE = """
from comfyserve.cli.exit_codes import exit_code_of

async def call():
    pass

def take(unstarted):
    raise KeyboardInterrupt

async def work():
    take(call())

print(exit_code_of(work()))
"""


def test_leaving_at_once_says_nothing() -> None:
    """Ctrl-C between a call and its start ends the command without a word of Python's."""
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_ANYWHERE],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert ended.stdout == "130\n"
    assert ended.stderr == ""
