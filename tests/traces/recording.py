"""A recorded session with a real ComfyUI, read into typed values."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.traces.lines import Closed, Line, Object, Opened, Request, Response, Sent, read_line

FOLDER = Path(__file__).parent / "recordings"


@dataclass(frozen=True, slots=True)
class Run:
    """One recorded POST /prompt and what became of it; the numbers are line numbers.

    `start`: the worker took it. `end`: from here on GET /history has it (or, if `deleted`, it
    left the queue for good). Both are None if the recording does not tell.
    """

    index: int
    post: int
    answer: Response | None
    prompt_id: str
    client_id: str
    body: Object
    number: float = 0
    start: int | None = None
    end: int | None = None
    deleted: bool = False
    entry: Object | None = None

    @property
    def accepted(self) -> bool:
        """Did the server queue it?"""
        return self.answer is not None and self.answer.status == 200

    @property
    def graph(self) -> Object:
        """What was posted. Messages name its nodes, so a scenario's client should post the same."""
        graph = self.body.get("prompt")
        return graph if isinstance(graph, dict) else {}


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording: its lines in the order seen, and its runs."""

    name: str
    lines: tuple[Line, ...]
    runs: tuple[Run, ...]

    @classmethod
    def load(cls, name: str) -> Recording:
        """Read a recording by its name, `txt2img` for instance."""
        return _load(name)

    @staticmethod
    def names() -> list[str]:
        """The names of all recordings, sorted."""
        return sorted(path.stem for path in FOLDER.glob("*.jsonl"))

    def sockets(self, client_id: str) -> frozenset[str]:
        """The recorded names of the sockets which a client opened."""
        opened = (line for line in self.lines if isinstance(line, Opened))
        return frozenset(line.socket for line in opened if line.client_id == client_id)

    def listener(self, run: Run) -> str:
        """The client id that heard of a run: its own, or of the first socket if it named none."""
        opened = (line.client_id for line in self.lines if isinstance(line, Opened))
        return run.client_id or next(opened, "")

    def messages(self, client_id: str, first: int = 0) -> list[tuple[int, Sent]]:
        """What a recorded client heard from line *first* on, less the greetings."""
        sockets = self.sockets(client_id)
        return [
            (index, line)
            for index, line in enumerate(self.lines)
            if index >= first
            and isinstance(line, Sent)
            and not line.greeting
            and line.socket in sockets
        ]

    def exchanges(self, method: str, path: str) -> list[tuple[int, Response]]:
        """The recorded answers to a request, with the line number of each request."""
        answers = {line.id: line for line in self.lines if isinstance(line, Response)}
        wanted = normal_path(path)
        return [
            (index, answers[line.id])
            for index, line in enumerate(self.lines)
            if isinstance(line, Request)
            and line.method == method
            and normal_path(line.path) == wanted
            and line.id in answers
        ]

    def waiting_before(self, run: Run) -> list[Run]:
        """Earlier runs of the same server that were still queued or running at *run*'s POST."""
        fresh = max((r.index for r in self.runs[: run.index + 1] if r.number == 0), default=0)
        return [
            r
            for r in self.runs[fresh : run.index]
            if r.accepted and (r.end is None or r.end > run.post)
        ]

    def knows_file(self, filename: str, subfolder: str, kind: str) -> bool:
        """Does any recorded output or upload name this file?"""
        return (filename, subfolder, kind) in _files(self.name)


def normal_path(path: str) -> tuple[str, frozenset[tuple[str, str]]]:
    """A path without /api, and its query as a set, so that the order of a query is no matter."""
    parts = urlsplit(path)
    query = parse_qs(parts.query, keep_blank_values=True)
    pairs = frozenset((key, value) for key, values in query.items() for value in values)
    if parts.path == "/view":
        # ComfyUI takes a missing subfolder for the empty one, and a missing type for output
        pairs |= {
            (k, d) for k, d in (("subfolder", ""), ("type", "output")) if k not in dict(pairs)
        }
    return parts.path.removeprefix("/api") or "/", pairs


@functools.cache
def _load(name: str) -> Recording:
    path = FOLDER / f"{name}.jsonl"
    with path.open(encoding="utf-8") as file:
        lines = tuple(read_line(json.loads(text)) for text in file)
    runs = tuple(dataclasses.replace(run, **_fate(lines, run)) for run in _runs(lines))
    return Recording(name, lines, runs)


def _runs(lines: tuple[Line, ...]) -> Iterator[Run]:
    answers = {line.id: line for line in lines if isinstance(line, Response)}
    posts = [(i, x) for i, x in enumerate(lines) if isinstance(x, Request) and x.posts_prompt]
    for index, (post, request) in enumerate(posts):
        answer = answers.get(request.id)
        body = request.json if isinstance(request.json, dict) else {}
        told = answer.json if answer is not None and isinstance(answer.json, dict) else {}
        extra = body.get("extra_data")
        inner = extra.get("client_id", "") if isinstance(extra, dict) else ""
        client = body.get("client_id", inner)
        yield Run(
            index=index,
            post=post,
            answer=answer,
            prompt_id=str(told.get("prompt_id", f"no-id-{index}")),
            client_id=client if isinstance(client, str) else "",
            body=body,
            number=told.get("number", 1),
        )


def _fate(lines: tuple[Line, ...], run: Run) -> Object:
    """When a run started and ended, and its history entry, as far as the recording tells."""
    if not run.accepted or run.answer is None:
        return {}
    answered = lines.index(run.answer)
    answers = {line.id: line for line in lines if isinstance(line, Response)}
    start: int | None = None
    end: int | None = None
    deleted = False
    busy = False
    entry: Object | None = None
    for index in range(run.post + 1, len(lines)):
        line = lines[index]
        over = False
        match line:
            case Sent() if line.prompt_id == run.prompt_id:
                start = index if start is None else start
                over = line.is_end
            case Sent() if line.type == "status":
                left = line.data["status"]["exec_info"]["queue_remaining"]
                ran = start is not None if "sid" in line.data else busy
                over = left == 0 and ran and index > answered
                busy = busy or left > 0
            case Request(method="POST", json={"delete": list(ids)}) if run.prompt_id in ids:
                deleted = over = start is None
            case Request(method="POST", json={"clear": True}) if line.path == "/queue":
                deleted = over = start is None
            case Request(method="GET") if line.path.startswith("/history"):
                answer = answers.get(line.id)
                if answer is not None and isinstance(answer.json, dict):
                    entry = entry or answer.json.get(run.prompt_id)
                    over = run.prompt_id in answer.json
            case Request() if line.posts_prompt and end is not None and entry is not None:
                break  # a later run may carry the same id
            case Closed(by_server=True):
                break
        if over and end is None:
            # told by a greeting: it was over before that socket opened
            end = index - 1 if isinstance(lines[index - 1], Opened) else index
        if deleted:
            break
    entry = entry or _built_entry(lines, run)
    return {
        "start": answered if start is None and not deleted else start,
        "end": end,
        "deleted": deleted,
        "entry": None if deleted or end is None else entry,
    }


def _built_entry(lines: tuple[Line, ...], run: Run) -> Object:
    """A history entry from the messages, in the shape ComfyUI gives it."""
    outputs: Object = {}
    told: dict[str, Object] = {}
    for line in lines[run.post :]:
        if not isinstance(line, Sent) or line.prompt_id != run.prompt_id:
            continue
        if line.type == "executed":
            outputs[line.data["node"]] = line.data["output"]
        elif line.type.startswith("execution_"):
            told[line.type] = line.data
        elif line.is_end:
            break  # a later run may carry the same id
    failed = "execution_success" not in told and bool(
        told.keys() & {"execution_error", "execution_interrupted"}
    )
    return {
        "prompt": queue_item(run, run.prompt_id, run.body, run.client_id),
        "outputs": outputs,
        "status": {
            "status_str": "error" if failed else "success",
            "completed": not failed,
            "messages": [[kind, data] for kind, data in told.items()],
        },
        "meta": {
            node: {"node_id": node, "display_node": node, "parent_node": None, "real_node": node}
            for node in outputs
        },
    }


def queue_item(run: Run, prompt_id: str, body: Object, client_id: str) -> list[Any]:
    """How GET /queue and history write a job: number, id, graph, extra data, output nodes."""
    extra = body.get("extra_data")
    extra = dict(extra) if isinstance(extra, dict) else {}
    if client_id:
        extra["client_id"] = client_id
    graph = body.get("prompt")
    linked = {
        value[0]
        for node in (graph.values() if isinstance(graph, dict) else ())
        if isinstance(node, dict)
        for value in node.get("inputs", {}).values()
        if isinstance(value, list) and len(value) == 2
    }
    ends = [node for node in graph if node not in linked] if isinstance(graph, dict) else []
    return [run.number, prompt_id, graph, extra, ends]


@functools.cache
def _files(name: str) -> frozenset[tuple[str, str, str]]:
    found: set[tuple[str, str, str]] = set()
    for line in _load(name).lines:
        match line:
            case Sent(frame=None):
                found.update(_files_in(line.message))
            case Response(json=dict(body)):
                found.update(_files_in(body))
    return frozenset(found)


def _files_in(value: Any) -> Iterator[tuple[str, str, str]]:
    match value:
        case {"filename": str(filename), **rest}:
            yield filename, str(rest.get("subfolder", "")), str(rest.get("type", "output"))
        case {"name": str(filename), "subfolder": str(subfolder), "type": str(kind)}:
            yield filename, subfolder, kind
        case dict():
            for inner in value.values():
                yield from _files_in(inner)
        case list():
            for inner in value:
                yield from _files_in(inner)
