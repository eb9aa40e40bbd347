"""What a node is: typed inputs, typed outputs, and one function that does the work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from comfyserve.engine.folders import Folders

if TYPE_CHECKING:  # so that the protocol server answers clearly where numpy is missing
    import numpy as np
    from numpy.typing import NDArray

Pixels: TypeAlias = "NDArray[np.float32]"
"""Pictures as ``[batch, height, width, 3]``, 0 to 1 (ComfyUI's IMAGE)."""


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a node.

    *type* is a socket type (``"IMAGE"``, ``"INT"``) or a function that lists the choices of a
    combo, asked afresh each time because files come and go. *options* are ComfyUI's own words:
    ``default``, ``min``, ``max``, ``step``, ``multiline``, ``tooltip``, ``image_upload``..
    """

    type: str | Callable[[Folders], Sequence[str]]
    options: Mapping[str, Any] = field(default_factory=dict)
    required: bool = True


@dataclass(frozen=True, slots=True)
class Output:
    """One output slot of a node: its socket type and its name."""

    type: str
    name: str


@dataclass(frozen=True, slots=True)
class Result:
    """What a node gives: a value for each output slot, and what it shows the user.

    *ui* becomes the ``output`` of the ``executed`` message and of the history entry.
    """

    values: tuple[Any, ...] = ()
    ui: Mapping[str, Any] | None = None


class Blocked:
    """A value that stops every node it reaches; with a *message* it also reports an error."""

    def __init__(self, message: str | None = None) -> None:
        self.message = message


class Interrupted(Exception):
    """The running prompt was interrupted; raised inside the node so that its work ends."""


class Context(Protocol):
    """What a running node may see and do besides its inputs."""

    node_id: str
    graph: Mapping[str, Any]
    extra_pnginfo: Mapping[str, Any]
    folders: Folders

    def progress(self, value: int, maximum: int, preview: Pixels | None = None) -> None:
        """Report a step, with an optional picture ``[height, width, 3]`` of it.

        Raises `Interrupted` when the prompt was interrupted, so call it at every step.
        """

    def check_interrupted(self) -> None:
        """Raise `Interrupted` when the prompt was interrupted."""

    def send_picture(self, encoded: bytes, mime: str) -> None:
        """Send an encoded picture to the owner's socket as a binary frame (event 1).

        A socket that asked for preview metadata gets it as event 4, which names the node.
        """

    def send_text(self, text: str) -> None:
        """Send a text to the owner's socket as a binary frame that names the node (event 3)."""


@dataclass(frozen=True, slots=True)
class Node:
    """A kind of node, as `/object_info` describes it and the executor runs it.

    *run* is called with the context and the inputs by name, in a worker thread; inputs that the
    node does not declare are left out. *fingerprint* tells what besides the inputs decides the
    result (a file's hash), like ComfyUI's ``IS_CHANGED``. *check* refuses values before anything
    is queued, like ``VALIDATE_INPUTS``: it returns a sentence, or None. Both are called with the
    `Folders` and, by name, those inputs that their signature names (None for a linked one); the
    inputs that *check* names are left to it alone, so their ranges and choices are not checked.
    *unload* gives back what the node keeps between runs (a loaded model).
    """

    name: str
    run: Callable[..., Result]
    inputs: Mapping[str, Input] = field(default_factory=dict)
    outputs: tuple[Output, ...] = ()
    display_name: str = ""
    category: str = "utils"
    description: str = ""
    output_node: bool = False
    api_node: bool = False
    fingerprint: Callable[..., str] | None = None
    check: Callable[..., str | None] | None = None
    unload: Callable[[], None] | None = None
