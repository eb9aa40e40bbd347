"""A multipart upload, read while it arrives: the file goes on to where it is kept, chunk by chunk.

>>> form = UploadForm(request, most=upload_cap)  # doctest: +SKIP
>>> await library.upload_told_later(form.file(), lambda: form.details)  # doctest: +SKIP

Its fields may stand before and after the file; `UploadForm.details` is whole once the file's
chunks, and with them the form, have been read to the end.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Final

from fastapi import Request
from starlette.requests import ClientDisconnect

from comfyserve.asset_library import UploadDetails
from comfyserve.denials import InvalidRequest, PayloadTooLarge
from comfyserve.errors import did_you_mean
from comfyserve.server.form_parts import FormParts, boundary_of
from comfyserve.workflows.graph import shown

FIELDS: Final = ("content_type", "file_path", "expected_hash", "tags", "expires_in")

_MOST_FIELD_BYTES: Final = 8192
_MOST_AROUND: Final = 128 * 1024
"""Bytes that a form may have besides its file: boundaries, headers, fields."""

_MOST_TAGS: Final = 64


class UploadForm:
    """One multipart form as it arrives, with the file in it; *most* is how large that may be."""

    def __init__(self, request: Request, most: int) -> None:
        self._request = request
        self._most = most
        self._boundary = boundary_of(request)
        self._fields: dict[str, list[str]] = {}
        self._details: UploadDetails | None = None

    @property
    def details(self) -> UploadDetails:
        """What the fields say. Raises `InvalidRequest`; RuntimeError while the form arrives."""
        if self._details is None:
            raise RuntimeError("the form has not been read to its end")
        return self._details

    async def file(self) -> AsyncGenerator[bytes]:
        """The chunks of the file, and no more bytes than it may have; to be read once.

        Raises `InvalidRequest` for a form that is none, or that breaks off, and `PayloadTooLarge`.
        """
        self._refuse_announced()
        events = FormParts(self._boundary)
        has_file, size = False, 0
        async for chunk in self._arriving():
            events.take(chunk)
            for part, data in events.found():
                name = part.name
                if data is None:
                    has_file = self._begun(name, has_file)
                elif name == "file":
                    size += len(data)
                    if size > self._most:
                        raise PayloadTooLarge("An asset", self._most)
                    yield data
                else:
                    self._fields[name][-1] += data.decode("latin-1")
                    self._refuse_long(name)
        events.finish()
        if not has_file:
            raise InvalidRequest("The form has no 'file'.")
        self._details = read_details(
            {name: [_text(value) for value in values] for name, values in self._fields.items()}
        )

    def _begun(self, name: str, has_file: bool) -> bool:
        """A part began; whether there is a file by now."""
        if name == "file":
            if has_file:
                raise InvalidRequest("The form has two files; each upload brings one.")
            return True
        if name not in FIELDS:
            hint = did_you_mean(name[:60], (*FIELDS, "file"))
            raise InvalidRequest(f"The form has a field {shown(name)}, unknown here.{hint}")
        values = self._fields.setdefault(name, [])
        if values and name != "tags":
            raise InvalidRequest(f"The form has {name!r} twice.")
        if len(values) >= _MOST_TAGS:
            raise InvalidRequest(f"The form has more than {_MOST_TAGS} tags.")
        values.append("")
        return has_file

    async def _arriving(self) -> AsyncIterator[bytes]:
        """The body's chunks; never more than a file of full size needs."""
        size = 0
        try:
            async for chunk in self._request.stream():
                size += len(chunk)
                if size > self._most + _MOST_AROUND:
                    raise PayloadTooLarge("An asset", self._most)
                if chunk:
                    yield chunk
        except ClientDisconnect:
            raise InvalidRequest("The upload broke off.") from None

    def _refuse_announced(self) -> None:
        announced = self._request.headers.get("Content-Length", "")
        is_number = announced.isascii() and announced.isdigit()
        if is_number and int(announced[:20]) > self._most + _MOST_AROUND:
            raise PayloadTooLarge("An asset", self._most)

    def _refuse_long(self, name: str) -> None:
        if len(self._fields[name][-1]) > _MOST_FIELD_BYTES:
            raise InvalidRequest(f"The form's {name!r} is longer than {_MOST_FIELD_BYTES} bytes.")


def read_details(fields: Mapping[str, list[str]]) -> UploadDetails:
    """What the fields of a form say of its file. Raises `InvalidRequest`."""
    told = {name: values[0] for name, values in fields.items() if name != "tags"}
    for name in ("content_type", "file_path"):
        if not told.get(name):
            raise InvalidRequest(f"The form needs {name!r}.", {"field": name})
    return UploadDetails(
        told["file_path"],
        told["content_type"],
        told.get("expected_hash") or None,
        tuple(tag for tag in fields.get("tags", ()) if tag),
        _seconds(told["expires_in"]) if told.get("expires_in") else None,
    )


def _seconds(told: str) -> int:
    if not (told.isascii() and told.isdigit() and len(told) < 10):
        problem = f"'expires_in' is {shown(told)}, but whole seconds are needed."
        raise InvalidRequest(problem, {"field": "expires_in"})
    return int(told)


def _text(value: str) -> str:
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        raise InvalidRequest("A field of the form is no UTF-8 text.") from None
