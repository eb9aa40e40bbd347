"""Nodes made for tests: they wait, fail, block, and emit anything, as told.

All but the loader and the blocker count as output nodes, so that a graph may be one node. `seed`
changes nothing but the cache: another seed runs the node again.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import uuid4

from comfyserve.engine.files import FileName
from comfyserve.engine.folders import Folders
from comfyserve.engine.node import Blocked, Context, Input, Node, Output, Result
from comfyserve.engine.nodes.saving import always_new

if TYPE_CHECKING:
    from comfyserve.engine.node import Pixels

CHUNK = 1 << 20
TICK_SECONDS = 0.01
SEED_LIMIT = 2**53 - 1
FAILURES: dict[str, type[Exception]] = {
    "RuntimeError": RuntimeError,
    "ValueError": ValueError,
    "KeyError": KeyError,
}


def tick(
    context: Context,
    steps: int,
    delay_ms: int,
    previews: bool = False,
    noise: int = 0,
    seed: int = 0,
    value: object = None,
) -> Result:
    """Report *steps* steps with *delay_ms* milliseconds before each, and pass *value* on.

    Previews are small and plain, or of *noise* times *noise* pixels that no format makes smaller.
    """
    for step in range(1, steps + 1):
        time.sleep(delay_ms / 1000)
        picture = _noise(noise, step) if noise else _shade(step / steps)
        context.progress(step, steps, picture if previews else None)
    return Result((value,))


def sleep(
    context: Context, seconds: float, interruptible: bool, seed: int = 0, value: object = None
) -> Result:
    """Wait without a word; only if *interruptible* does an interrupt end it early."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if interruptible:
            context.check_interrupted()
        time.sleep(min(left, TICK_SECONDS))
    return Result((value,))


def fail(
    context: Context, message: str, kind: str = "RuntimeError", value: object = None
) -> NoReturn:
    """Raise an error of that *kind*."""
    raise FAILURES[kind](message)


def run_out_of_memory(context: Context, value: object = None) -> NoReturn:
    """Fail the way a node does that needs more memory than there is."""
    raise MemoryError("Allocation of 1099511627776 bytes failed")


def block(context: Context, value: object, message: str = "") -> Result:
    """Give a blocked value in place of *value*; without a *message* it blocks in silence."""
    return Result((Blocked(message or None),))


def tally(context: Context, name: str, value: object = None) -> Result:
    """Add *name* as a line to tally.txt among the outputs, each time anew, and pass *value* on."""
    _append(context, "tally.txt", name)
    return Result((value,))


def spend(context: Context, credits: float, seed: int = 0, value: object = None) -> Result:
    """Pass *value* on, as a partner node that costs *credits* would. Nothing is spent."""
    return Result((value,), ui={"credits": [credits]})


def emit(
    context: Context,
    key: str,
    kind: str,
    name: str,
    pattern: str,
    size: int,
    count: int = 1,
    subfolder: str = "",
    type: str = "output",
    shown_as: str = "",
    seed: int = 0,
    value: object = None,
) -> Result:
    """Show *count* files or strings of *size* bytes, *pattern* over and over, under *key*.

    A pattern that begins with ``hex:`` means the bytes that its digits spell.
    """
    is_hex = pattern.startswith("hex:")
    content = (bytes.fromhex(pattern[4:]) if is_hex else pattern.encode()) or b"\0"
    if kind == "strings":
        text = (content * (size // len(content) + 1))[:size].decode("utf-8", "ignore")
        return Result((value,), ui={key: [text] * count})
    shown = []
    for number in range(count):
        file = FileName(_numbered(name, number), subfolder, type)
        _write(context, file, content, size)
        shown.append({"filename": shown_as or file.name, "subfolder": subfolder, "type": type})
    return Result((value,), ui={key: shown})


def say(context: Context, text: str, seed: int = 0) -> Result:
    """Send *text* as a frame while the node runs, and show it when it is done."""
    context.send_text(text)
    return Result((text,), ui={"text": [text]})


def send_pictures(context: Context, count: int, width: int, height: int, seed: int = 0) -> Result:
    """Send *count* grey PNGs through the socket; nothing is saved or shown."""
    from PIL import Image

    for number in range(count):
        context.progress(number, count)
        encoded = io.BytesIO()
        grey = 255 * (number + 1) // count
        Image.new("RGB", (width, height), (grey, grey, grey)).save(encoded, "PNG")
        context.send_picture(encoded.getvalue(), "image/png")
    return Result()


class LoadedCheckpoint:
    """The one test checkpoint in memory; another one drives it out.

    Each that is loaded is a line of loads.txt among the outputs.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._name = ""

    def load(self, context: Context, ckpt_name: str, load_seconds: float, seed: int = 0) -> Result:
        """Take *load_seconds*, unless that checkpoint is the one in memory."""
        with self._lock:
            warm = self._name == ckpt_name
        if not warm:
            sleep(context, load_seconds, interruptible=True)
            with self._lock:
                self._name = ckpt_name
            _append(context, "loads.txt", ckpt_name)
        return Result((f"model of {ckpt_name}", ckpt_name, warm))

    def unload(self) -> None:
        with self._lock:
            self._name = ""


def _shade(brightness: float) -> Pixels:
    import numpy as np

    return np.full((16, 16, 3), brightness, np.float32)


def _noise(side: int, seed: int) -> Pixels:
    import numpy as np

    return np.random.default_rng(seed).random((side, side, 3), np.float32)


def _numbered(name: str, number: int) -> str:
    """*name* for the first file, then "name_2", "name_3" before the suffix."""
    if number == 0:
        return name
    stem, dot, suffix = name.rpartition(".")
    return f"{stem or name}_{number + 1}{dot}{suffix if dot else ''}"


def _append(context: Context, name: str, line: str) -> None:
    with FileName(name).writable(context.folders).open("a", encoding="utf-8") as lines:
        lines.write(f"{line}\n")


def _write(context: Context, file: FileName, content: bytes, size: int) -> None:
    # Whoever is sent the file that had the name before still gets that one whole.
    target = file.writable(context.folders)
    arriving = target.with_name(f".{uuid4().hex}")
    try:
        with arriving.open("wb") as written:
            for chunk in _chunks(content, size):
                context.check_interrupted()
                written.write(chunk)
        arriving.replace(target)
    finally:
        arriving.unlink(missing_ok=True)


def _chunks(content: bytes, size: int) -> Iterator[bytes]:
    """*size* bytes of *content* over and over, about a megabyte at a time."""
    whole = content * max(1, CHUNK // len(content))
    full, rest = divmod(size, len(whole))
    yield from islice(_forever(whole), full)
    yield whole[:rest]


def _forever(chunk: bytes) -> Iterator[bytes]:
    while True:
        yield chunk


def _choice(*choices: str) -> Callable[[Folders], Sequence[str]]:
    return lambda folders: choices


def _input(kind: str | Callable[[Folders], Sequence[str]], help: str, **options: Any) -> Input:
    return Input(kind, {**options, "tooltip": help})


def _optional(kind: str, help: str, **options: Any) -> Input:
    return Input(kind, {**options, "tooltip": help}, required=False)


_CHECKPOINT = LoadedCheckpoint()
_VALUE = _optional("*", "Passed on as it is.")
_SEED = _optional("INT", "Another one runs the node again.", default=0, min=0, max=SEED_LIMIT)
_PASSED_ON = (Output("*", "value"),)


def _node(
    run: Callable[..., Result],
    name: str,
    description: str,
    inputs: dict[str, Input],
    outputs: tuple[Output, ...] = _PASSED_ON,
    **others: Any,
) -> Node:
    settings = {"output_node": True, "category": "test", "display_name": f"Test: {name}", **others}
    return Node(f"Test{name}", run, inputs, outputs, description=description, **settings)


ALL: tuple[Node, ...] = (
    _node(
        tick,
        "Progress",
        "Reports progress step by step, with a chosen delay, and passes a value on.",
        {
            "steps": _input("INT", "How many steps.", default=10, min=1, max=10_000_000),
            "delay_ms": _input("INT", "Milliseconds a step.", default=100, min=0, max=600_000),
            "previews": _optional("BOOLEAN", "Whether steps have previews.", default=False),
            "noise": _optional("INT", "Pixels a side of a big preview.", default=0, min=0, max=512),
            "seed": _SEED,
            "value": _VALUE,
        },
    ),
    _node(
        sleep,
        "Sleep",
        "Waits without reporting anything; an interrupt ends it only if it is interruptible.",
        {
            "seconds": _input("FLOAT", "How long.", default=1.0, min=0.0, max=3600.0),
            "interruptible": _input("BOOLEAN", "Whether it may be interrupted.", default=True),
            "seed": _SEED,
            "value": _VALUE,
        },
    ),
    _node(
        fail,
        "Fail",
        "Fails with a chosen error and message.",
        {
            "message": _input("STRING", "What the error says.", default="the test node failed"),
            "kind": Input(_choice(*FAILURES), {"tooltip": "The error's type."}, required=False),
            "value": _VALUE,
        },
    ),
    _node(run_out_of_memory, "OutOfMemory", "Runs out of memory.", {"value": _VALUE}),
    _node(
        block,
        "Block",
        "Blocks every node behind it; with a message that is reported as an error.",
        {
            "value": _input("*", "What is kept back."),
            "message": _optional("STRING", "Empty: blocks in silence.", default=""),
        },
        output_node=False,
    ),
    _node(
        spend,
        "Paid",
        "Says of itself that it costs money, as partner nodes do; it spends nothing.",
        {
            "credits": _input("FLOAT", "What it pretends to cost.", default=1.0, min=0.0, max=1e6),
            "seed": _SEED,
            "value": _VALUE,
        },
        api_node=True,
    ),
    _node(
        tally,
        "Tally",
        "Adds a line to a file each time it runs, which is always: it is never cached.",
        {"name": _input("STRING", "The line to add.", default="one"), "value": _VALUE},
        fingerprint=always_new,
    ),
    _node(
        emit,
        "Emit",
        "Writes files of any name and size, or strings, and shows them under any key.",
        {
            "key": _input("STRING", "The key of the output.", default="files"),
            "kind": _input(_choice("files", "strings"), "What to show."),
            "name": _input("STRING", "The file's name; the second is name_2.", default="emit.bin"),
            "pattern": _input("STRING", "Repeated to the size; or hex:00ff..", default="test "),
            "size": _input("INT", "Bytes.", default=16, min=0, max=2**36),
            "count": _optional("INT", "How many.", default=1, min=0, max=10_000),
            "subfolder": _optional("STRING", "Where in the folder.", default=""),
            "type": Input(_choice("output", "temp"), {"tooltip": "Which folder."}, required=False),
            "shown_as": _optional("STRING", "A name to tell in place of the true one.", default=""),
            "seed": _SEED,
            "value": _VALUE,
        },
    ),
    _node(
        _CHECKPOINT.load,
        "Checkpoint",
        "Pretends to load a checkpoint, which takes its time unless it was the last one loaded;"
        " each time is a line of loads.txt.",
        {
            "ckpt_name": _input(_choice("test-a.safetensors", "test-b.safetensors"), "Which one."),
            "load_seconds": _input("FLOAT", "How long.", default=1.0, min=0.0, max=600.0),
            "seed": _SEED,
        },
        (Output("TEST_MODEL", "model"), Output("STRING", "name"), Output("BOOLEAN", "was_warm")),
        output_node=False,
        unload=_CHECKPOINT.unload,
    ),
    _node(
        say,
        "Text",
        "Sends a text frame while it runs, and shows the text.",
        {"text": _input("STRING", "What to say.", default="hello", multiline=True), "seed": _SEED},
        (Output("STRING", "text"),),
    ),
    _node(
        send_pictures,
        "Picture",
        "Sends PNG pictures through the socket, as SaveImageWebsocket does; saves nothing.",
        {
            "count": _input("INT", "How many.", default=1, min=0, max=1000),
            "width": _input("INT", "Pixels.", default=32, min=1, max=4096),
            "height": _input("INT", "Pixels.", default=32, min=1, max=4096),
            "seed": _SEED,
        },
        (),
    ),
)
