"""Plain HTTP to a running server, as any client without a library would speak it."""

from __future__ import annotations

import http.client
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

Document = dict[str, Any]

OVER = frozenset({"succeeded", "failed", "canceled", "expired"})
PATIENCE = 20.0
"""Seconds that a test waits for what must come."""

_PAUSE = 0.02


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Document:
        """The body, which must be a JSON object."""
        document = json.loads(self.body)
        assert isinstance(document, dict), document
        return document

    @property
    def code(self) -> str:
        """The code in our error body."""
        code = self.json()["error"]["code"]
        assert isinstance(code, str)
        return code


@dataclass(frozen=True, slots=True)
class Frame:
    """One server-sent event; *id* is None where it has none."""

    event: str
    data: Document
    id: int | None = None
    at: float = field(default_factory=time.monotonic, compare=False)

    @property
    def is_last(self) -> bool:
        """Whether it tells that the job is over."""
        return self.event == "status" and self.data["status"] in OVER


class ServerCalls:
    """Calls of the server at *url*; each has a connection of its own and a deadline."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._address = urlsplit(url).netloc

    def ask(
        self,
        method: str,
        path: str,
        body: Document | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        seconds: float = PATIENCE,
    ) -> Answer:
        """The answer to a request, whatever its status. A dict is sent as JSON."""
        connection = http.client.HTTPConnection(self._address, timeout=seconds)
        told = {"Connection": "close", **(headers or {})}
        if isinstance(body, dict):
            body = json.dumps(body).encode()
            told.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, body, told)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def get(self, path: str) -> Document:
        """The JSON document at *path*, which must be there."""
        answer = self.ask("GET", path)
        assert answer.status == 200, (path, answer)
        return answer.json()

    def submit(self, graph: Mapping[str, Any], **others: Any) -> Document:
        """Hand in a graph; the new job."""
        answer = self.ask("POST", "/api/v2/jobs", {"workflow": dict(graph), **others})
        assert answer.status == 201, answer
        return answer.json()

    def job(self, job_id: str) -> Document:
        """The job as it stands."""
        return self.get(f"/api/v2/jobs/{job_id}")

    def jobs(self, **query: object) -> list[Document]:
        """All jobs, newest first, over as many pages as there are."""
        found: list[Document] = []
        cursor: str | None = None
        for _ in range(100):
            asked = {"limit": 100, **query, **({"cursor": cursor} if cursor else {})}
            page = self.get(f"/api/v2/jobs?{urlencode(asked)}")
            found += page["jobs"]
            cursor = page["next_cursor"]
            if not cursor:
                return found
        raise AssertionError("the list of jobs has no end")

    def cancel(self, job_id: str) -> Document:
        """Cancel the job; how it stands then."""
        answer = self.ask("POST", f"/api/v2/jobs/{job_id}/cancel")
        assert answer.status == 200, answer
        return answer.json()

    def until(
        self, job_id: str, is_so: Callable[[Document], bool], seconds: float = PATIENCE
    ) -> Document:
        """The job as soon as *is_so*; fails with how it stands after *seconds*."""
        job: Document = {}

        def looks_so() -> bool:
            nonlocal job
            job = self.job(job_id)
            return is_so(job)

        wait_until(looks_so, lambda: f"the job stands like this: {job}", seconds)
        return job

    def until_running(self, job_id: str, seconds: float = PATIENCE) -> Document:
        """The job once it runs. Fails for one that is over before that was seen."""
        job = self.until(job_id, lambda job: job["status"] != "queued", seconds)
        assert job["status"] == "running", job
        return job

    def until_over(self, job_id: str, seconds: float = PATIENCE) -> Document:
        """The job once it is over, however it ended."""
        return self.until(job_id, lambda job: job["status"] in OVER, seconds)

    @contextmanager
    def following(
        self, job_id: str, *, after: int | None = None, v2: bool = False, seconds: float = PATIENCE
    ) -> Iterator[Iterator[Frame]]:
        """The frames of a job's stream as they come, until it ends, within *seconds* in all.

        Reading them raises ConnectionError for a stream that was cut off, not ended.
        """
        connection = http.client.HTTPConnection(self._address, timeout=seconds)
        headers = {"Accept": "text/event-stream"}
        if after is not None:
            headers["Last-Event-ID"] = str(after)
        try:
            connection.request(
                "GET", f"/api{'/v2' if v2 else ''}/jobs/{job_id}/events", headers=headers
            )
            answer = connection.getresponse()
            if answer.status != 200:
                raise AssertionError((answer.status, answer.read()))
            yield _frames(answer, time.monotonic() + seconds)
        finally:
            connection.close()

    def events(
        self, job_id: str, *, after: int | None = None, v2: bool = False, seconds: float = PATIENCE
    ) -> list[Frame]:
        """All frames of a job's stream, which must end within *seconds*."""
        with self.following(job_id, after=after, v2=v2, seconds=seconds) as frames:
            return list(frames)

    def upload(
        self, content: bytes, name: str = "file.bin", kind: str = "application/octet-stream"
    ) -> Answer:
        """The answer to an upload of *content* as an asset."""
        boundary = uuid.uuid4().hex
        parts = {"content_type": kind, "file_path": name}
        body = b"".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n'
            f"{value}\r\n".encode()
            for key, value in parts.items()
        )
        body += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; '
            f'filename="{name}"\r\nContent-Type: {kind}\r\n\r\n'
        ).encode()
        body += content + f"\r\n--{boundary}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        return self.ask("POST", "/api/v2/assets", body, headers)


def wait_until(
    is_so: Callable[[], bool], told: Callable[[], str] = lambda: "", seconds: float = PATIENCE
) -> None:
    """Return once *is_so*; fail after *seconds* with what is *told* then."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, f"not within {seconds:g} s; {told()}"
        time.sleep(_PAUSE)


def _frames(stream: http.client.HTTPResponse, end: float) -> Iterator[Frame]:
    said: dict[str, str] = {}
    while line := stream.readline():
        assert time.monotonic() < end, f"the stream did not end in time; {said}"
        text = line.decode().rstrip("\r\n")
        if not text and "data" in said:
            number = int(said["id"]) if "id" in said else None
            yield Frame(said["event"], json.loads(said["data"]), number)
        if not text:
            said = {}
        elif not text.startswith(":"):
            name, _, value = text.partition(":")
            said[name] = value.removeprefix(" ")
    if stream.chunk_left is not None:  # the last chunk, which is empty, did not come
        raise ConnectionError("the stream was cut off")
