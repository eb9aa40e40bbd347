"""The body of a call: JSON, or a form whose files are kept while they arrive."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request
from starlette.requests import ClientDisconnect

from comfyserve.denials import InvalidRequest, PayloadTooLarge
from comfyserve.errors import InputProblem, InvalidInputs
from comfyserve.server.form_parts import FormParts, Found, Part, boundary_of
from comfyserve.server.requests import parsed, read_object, settings_of
from comfyserve.server.v2.submissions import (
    read_extra_data,
    read_id,
    read_metadata,
    read_priority,
)
from comfyserve.server.workflows.call_inputs import takes_file
from comfyserve.server.workflows.calls import Wish
from comfyserve.server.workflows.media_assets import CallAssets
from comfyserve.server.workflows.media_values import Kept
from comfyserve.workflows.graph import shown
from comfyserve.workflows.parameters import Written
from comfyserve.workflows.workflow import Workflow

FIELDS: Final = ("inputs", "metadata", "priority", "extra_data", "id")
"""What may stand in the body of a call; in a form all others are inputs."""

_MOST_PARTS: Final = 1000


@dataclass(frozen=True, slots=True)
class CallBody:
    """What was read of a call: its *inputs*, and what it says besides."""

    inputs: Mapping[str, object]
    wish: Wish


def is_form(request: Request) -> bool:
    """Whether the body is a form."""
    return request.headers.get("Content-Type", "").lower().startswith("multipart/")


async def read_json_call(request: Request, key: str | None, workflow: Workflow | None) -> CallBody:
    """A call in JSON. Raises `InvalidRequest`, `MetadataInvalid` and `PayloadTooLarge`.

    *workflow* tells which of its inputs somebody put beside 'inputs' instead of into it.
    """
    names = [] if workflow is None else [one.name for one in workflow.parameters]
    document = await read_object(request, (*FIELDS, *names))
    for name in document:
        if name not in FIELDS:
            example = f'{{"inputs": {{{json.dumps(name)}: ..}}}}'
            raise InvalidRequest(
                f"The body has the input {name!r} beside 'inputs'. Put it inside: {example}."
            )
    inputs = document.get("inputs")
    if inputs is not None and not isinstance(inputs, dict):
        raise InvalidRequest("'inputs' has to be an object: the values by the inputs' names.")
    return CallBody(inputs or {}, _wish(document, key))


async def read_form_call(
    request: Request,
    key: str | None,
    workflow: Workflow,
    assets: CallAssets,
    *,
    may_address: bool,
) -> CallBody:
    """A call as a form: each field an input, each file kept in *assets* while it arrives.

    The fields of a call in JSON may stand in it too, ``inputs`` and ``extra_data`` as JSON, in
    any order. Raises what `read_json_call` does, `InvalidInputs` for a file where none is taken,
    and what keeping a file raises.
    """
    form = _Form(request)
    inputs: dict[str, object] = {}
    fields: dict[str, str] = {}
    async with aclosing(form.parts()) as parts:
        async for part in parts:
            held: Mapping[str, object] = fields if part.name in FIELDS else inputs
            if part.name in held:
                raise InvalidRequest(f"The form has {shown(part.name)} twice.")
            if part.name in FIELDS:
                fields[part.name] = await form.text(part)
            elif part.file_name is None:
                inputs[part.name] = Written(await form.text(part))
            elif part.file_name or not await form.is_empty(part):
                _refuse_file(workflow, part.name, may_address)
                chunks = form.chunks(part)
                name = part.file_name or part.name
                inputs[part.name] = Kept(await assets.keep(chunks, name, part.content_type))
    document = {name: _read(name, text) for name, text in fields.items()}
    for name, value in document.pop("inputs", {}).items():
        if name in inputs:
            raise InvalidRequest(f"The form has {shown(name)} twice: as a field, and in 'inputs'.")
        inputs[name] = value
    return CallBody(inputs, _wish(document, key))


class _Form:
    """A form as it arrives: its parts one after the other, each to be read before the next."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._most_text = settings_of(request).body_cap
        self._texts = 0
        self._found = self._arriving()
        self._next: Part | None = None
        self._ahead: bytes | None = None

    async def parts(self) -> AsyncGenerator[Part]:
        """Every part; what is not read of one is passed over."""
        count = 0
        while True:
            while self._next is None:
                found = await anext(self._found, None)
                if found is None:
                    return
                self._note(found)
            part, self._next, self._ahead = self._next, None, None
            count += 1
            if count > _MOST_PARTS:
                raise InvalidRequest(f"The form has more than {_MOST_PARTS} fields.")
            yield part

    async def chunks(self, part: Part) -> AsyncGenerator[bytes]:
        """The bytes of the part that came last."""
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            yield ahead
        while self._next is None and (found := await anext(self._found, None)) is not None:
            if self._note(found):
                continue
            assert found[1] is not None
            yield found[1]

    async def is_empty(self, part: Part) -> bool:
        """Whether the part has no bytes, as that of a field in which nobody chose a file."""
        async for chunk in self.chunks(part):
            if chunk:
                self._ahead = chunk
                return False
        return True

    async def text(self, part: Part) -> str:
        """The part as text. Raises `InvalidRequest` and `PayloadTooLarge`."""
        read = bytearray()
        async for chunk in self.chunks(part):
            self._texts += len(chunk)
            if self._texts > self._most_text:
                raise PayloadTooLarge("The text of a form", self._most_text)
            read += chunk
        try:
            return read.decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"The form's {shown(part.name)} is no UTF-8 text.") from None

    def _note(self, found: Found) -> bool:
        """Whether what was found is the beginning of the next part."""
        part, data = found
        if data is None:
            self._next = part
        return data is None

    async def _arriving(self) -> AsyncGenerator[Found]:
        parts = FormParts(boundary_of(self._request))
        try:
            async for chunk in self._request.stream():
                parts.take(chunk)
                for found in parts.found():
                    yield found
        except ClientDisconnect:
            raise InvalidRequest("The request broke off.") from None
        parts.finish()


def _refuse_file(workflow: Workflow, name: str, may_address: bool) -> None:
    """Raise `InvalidInputs` before the bytes come for which there is no use."""
    try:
        if takes_file(workflow, name, may_address=may_address):
            return
        problem = f"{name} takes no file."
    except ValueError as error:
        problem = str(error)
    raise InvalidInputs([InputProblem(name, problem)])


def _read(name: str, text: str) -> Any:
    match name:
        case "inputs":
            return _object(name, text)
        case "extra_data":
            return _object(name, text)
        case "priority":
            word = text.strip()
            return int(word) if word.lstrip("-").isdecimal() and len(word) < 20 else text
        case "metadata" if text.lstrip()[:1] == "{":
            return _object(name, text)
        case _:
            return text


def _object(name: str, text: str) -> Any:
    try:
        document = parsed(text.encode())
    except InvalidRequest as error:
        problem = str(error).replace("The body", f"The form's {name!r}", 1)
        raise InvalidRequest(problem) from None
    if not isinstance(document, dict):
        raise InvalidRequest(f"The form's {name!r} has to be a JSON object.")
    return document


def _wish(document: Mapping[str, Any], key: str | None) -> Wish:
    return Wish(
        metadata=read_metadata(document.get("metadata")),
        priority=read_priority(document.get("priority")),
        extra_data=read_extra_data(document.get("extra_data")),
        key=key,
        id=read_id(document.get("id")),
    )
