"""What is said on a socket: a client's messages read, ours put into words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from comfyserve import __version__
from comfyserve.access import Caller
from comfyserve.denials import InvalidRequest
from comfyserve.errors import did_you_mean
from comfyserve.server.documents import Document, encoded
from comfyserve.server.problems import retry_after_of, words_of
from comfyserve.server.requests import parsed, refuse_unknown
from comfyserve.workflows.graph import shown

Id = str | int | None
"""What a client calls a message of its own, to know the answer by."""

Previews = Literal["binary", "base64", "none"]
"""How a client wants the previews of the jobs that it follows."""

FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "auth": frozenset({"token", "previews"}),
    "hello": frozenset({"previews"}),
    "submit": frozenset(
        {
            *("workflow", "inputs", "graph", "metadata", "priority", "extra_data"),
            *("idempotency_key", "follow", "cancel_on_disconnect"),
        }
    ),
    "follow": frozenset({"job_id", "after"}),
    "unfollow": frozenset({"job_id"}),
    "cancel": frozenset({"job_id"}),
    "get": frozenset({"job_id"}),
    "ping": frozenset(),
}
"""The messages that a client may send, and their fields besides ``type`` and ``id``."""

_LONGEST_ID: Final = 200
_LONGEST_KEY: Final = 255
_LARGEST_NUMBER: Final = 2**53


@dataclass(frozen=True, slots=True)
class Asked:
    """A client's message: what *type* it is of, its *id*, and all else that it says."""

    type: str
    id: Id
    fields: Mapping[str, Any]

    def check(self) -> None:
        """Raise `InvalidRequest` unless it is of a type that there is, with fields that it has."""
        if not self.type:
            raise InvalidRequest(f"A message needs a 'type': one of {', '.join(FIELDS)}.")
        if self.type not in FIELDS:
            hint = did_you_mean(self.type[:60], FIELDS) or f" There are {', '.join(FIELDS)}."
            raise InvalidRequest(f"There is no message of the type {shown(self.type)}.{hint}")
        refuse_unknown(self.fields, FIELDS[self.type], f"The message {self.type!r}")

    def text(self, name: str) -> str:
        """A field that has to be a text, and to be there. Raises `InvalidRequest`."""
        value = self.fields.get(name)
        if not isinstance(value, str):
            raise InvalidRequest(f"The message {self.type!r} needs {name!r}, a text.")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """A field that may be left out. Raises `InvalidRequest`."""
        value = self.fields.get(name, default)
        if not isinstance(value, bool):
            raise InvalidRequest(f"{name!r} has to be true or false.")
        return value

    def number(self, name: str) -> int:
        """The number of an event, 0 where it is left out. Raises `InvalidRequest`."""
        value = self.fields.get(name, 0)
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvalidRequest(f"{name!r} has to be the number of an event, such as 12.")
        if not 0 <= value < _LARGEST_NUMBER:
            raise InvalidRequest(f"{name!r} is {shown(value)}, which no event has as its number.")
        return value

    def previews(self) -> Previews | None:
        """How previews are wanted, where that is said. Raises `InvalidRequest`."""
        value = self.fields.get("previews")
        if value is None:
            return None
        for known in get_args(Previews):
            if value == known:
                wanted: Previews = known
                return wanted
        hint = did_you_mean(value[:60], get_args(Previews)) if isinstance(value, str) else ""
        raise InvalidRequest(
            f"'previews' is {shown(value)}, but has to be 'binary', 'base64' or 'none'.{hint}"
        )

    def key(self) -> str | None:
        """The key that makes the request one that happens once. Raises `InvalidRequest`."""
        value = self.fields.get("idempotency_key")
        if value is not None and not (isinstance(value, str) and 1 <= len(value) <= _LONGEST_KEY):
            raise InvalidRequest(
                f"'idempotency_key' has to be a text of 1 to {_LONGEST_KEY} characters."
            )
        return value


def read(message: str) -> Asked:
    """The message that a client sent; `Asked.check` says whether it is one that there is.

    Raises `InvalidRequest`.
    """
    try:
        document = parsed(message.encode())
    except InvalidRequest as error:
        raise InvalidRequest(str(error).replace("The body", "The message", 1)) from None
    if not isinstance(document, dict):
        raise InvalidRequest("A message has to be a JSON object with a 'type'.")
    id, type = document.pop("id", None), document.pop("type", None)
    if not _is_id(id):
        raise InvalidRequest(
            f"'id' has to be a whole number, or a text of at most {_LONGEST_ID} characters."
        )
    return Asked(type if isinstance(type, str) else "", id, document)


def _is_id(value: object) -> bool:
    match value:
        case None:
            return True
        case bool():
            return False
        case int():
            return abs(value) < _LARGEST_NUMBER
        case str():
            return len(value) <= _LONGEST_ID
        case _:
            return False


def ready(id: Id, caller: Caller, previews: Previews, *, may_graphs: bool) -> str:
    """The client is let in: as whom, and what it may do."""
    key = caller.key
    return said(
        "ready",
        id,
        version=__version__,
        caller=None if key is None else key.name,
        permissions={
            "workflows": None if key is None or caller.is_admin else key.workflows,
            "graphs": may_graphs,
            # Where strangers without a key may run no graphs, they may do neither of these.
            "publish": caller.may_publish and (key is not None or may_graphs),
            "admin": caller.is_admin and (key is not None or may_graphs),
        },
        previews=previews,
    )


def error(id: Id, wrong: Exception) -> str:
    """What was asked for is not done, and why."""
    code, message, details = words_of(wrong)
    told: Document = {"error": {"code": code, "message": message, "details": details}}
    if (seconds := retry_after_of(wrong)) is not None:
        told["retry_after"] = seconds
    return said("error", id, **told)


def said(type: str, id: Id, **fields: Any) -> str:
    """A message of ours, with the *id* of the one that it answers."""
    return encoded({"type": type, "id": id, **fields}).decode("ascii")
