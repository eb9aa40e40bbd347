"""The parts of a multipart form, told apart while its bytes arrive."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from comfyserve.denials import InvalidRequest


def boundary_of(request: Request) -> bytes:
    """What stands between the parts. Raises `InvalidRequest` for what is no form."""
    kind, options = parse_options_header(request.headers.get("Content-Type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidRequest("An upload has to be multipart/form-data, with a boundary.")
    return boundary


@dataclass(slots=True, eq=False)
class Part:
    """One part of a form. A *file_name*, empty or not, tells that a file was meant."""

    name: str = ""
    file_name: str | None = None
    content_type: str = ""


Found = tuple[Part, bytes | None]
"""Bytes of a part or, where it begins, None."""


class FormParts:
    """What is found in the bytes of a form: parts that begin, and their data."""

    def __init__(self, boundary: bytes) -> None:
        self._found: list[Found] = []
        self._part = Part()
        self._header = _Header()
        self._is_over = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part,
                    "on_header_field": self._on_header_name,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header,
                    "on_headers_finished": self._on_headers,
                    "on_part_data": self._on_data,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise InvalidRequest(f"The form cannot be read: {error}.") from None

    def take(self, chunk: bytes) -> None:
        """Read on. Raises `InvalidRequest` for what is no form."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise InvalidRequest(f"The form cannot be read: {error}.") from None

    def found(self) -> list[Found]:
        """What was found since the last time."""
        found: list[Found] = []
        for (_, is_data), pieces in groupby(self._found, key=_kind):
            # Bytes that look much like the boundary come in many small pieces.
            if is_data:
                together = list(pieces)
                data = b"".join(piece for _, piece in together if piece is not None)
                found.append((together[0][0], data))
            else:
                found += pieces
        self._found.clear()
        return found

    def finish(self) -> None:
        """Raises `InvalidRequest` where the form broke off."""
        if not self._is_over:
            raise InvalidRequest("The form breaks off before its end.")

    def _on_part(self) -> None:
        self._part, self._header = Part(), _Header()

    def _on_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header.name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header.value += data[start:end]

    def _on_header(self) -> None:
        name, value = bytes(self._header.name).lower(), bytes(self._header.value)
        if name == b"content-disposition":
            _, options = parse_options_header(value)
            self._part.name = _text(options.get(b"name", b""))
            if b"filename" in options:
                self._part.file_name = _text(options[b"filename"])
        elif name == b"content-type":
            self._part.content_type = value.decode("latin-1")
        self._header = _Header()

    def _on_headers(self) -> None:
        if not self._part.name:
            raise InvalidRequest("A part of the form has no name.")
        self._found.append((self._part, None))

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._found.append((self._part, data[start:end]))

    def _on_end(self) -> None:
        self._is_over = True


@dataclass(slots=True)
class _Header:
    """The header that is being read."""

    name: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)


def _kind(one: Found) -> tuple[int, bool]:
    return id(one[0]), one[1] is not None


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
