"""Workflows to call, and calls of them as any HTTP client would make them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from tests.server.serving import NOWHERE, Served, serving
from tests.server_calls import wait_until

Document = dict[str, Any]

_SAVE = {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "p"}}
_SCALE = {"upscale_method": "bilinear", "width": 16, "height": 16, "crop": "disabled"}
_LOAD = {"class_type": "LoadImage", "inputs": {"image": "example.png"}}

WORKFLOWS: dict[str, Document] = {
    # A picture in, the same in another size out.
    "scale": {
        "1": _LOAD,
        "2": {"class_type": "ImageScale", "inputs": {"image": ["1", 0], **_SCALE}},
        "3": _SAVE,
    },
    # Its mask is drawn over its image.
    "masked": {
        "1": _LOAD,
        "2": {"class_type": "ImageScale", "inputs": {"image": ["1", 0], **_SCALE}},
        "3": _SAVE,
        "4": {"class_type": "PreviewAny", "inputs": {"source": ["1", 1]}},
    },
    # Takes as long as it is told.
    "nap": {
        "8": {
            "class_type": "TestSleep",
            "inputs": {"seconds": 0.0, "interruptible": True, "seed": 1},
        }
    },
    # Two results, of which people want one.
    "one_of_two": {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0},
        },
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": _SAVE,
        "4": {
            "class_type": "SaveImage",
            "inputs": {"images": ["1", 0], "filename_prefix": "other"},
        },
    },
}

SIDECARS = {
    "scale": '[inputs.image]\ntargets = ["1.image"]\n[inputs.width]\ntargets = ["2.width"]\n',
    "nap": """
        timeout = 90
        [inputs.seconds]
        targets = ["8.seconds"]
        [inputs.seed]
        targets = ["8.seed"]
        type = "seed"
        [inputs.metadata]
        targets = ["8.interruptible"]
    """,
    "one_of_two": 'open = true\noutputs = ["3"]\n[inputs.width]\ntargets = ["1.width"]\n',
}


def workflow_folder(folder: Path, **sidecars: str) -> Path:
    """A folder with all workflows; *sidecars* are there instead of the usual ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, graph in WORKFLOWS.items():
        (folder / f"{name}.json").write_text(json.dumps(graph), encoding="utf-8")
    for name, text in (SIDECARS | sidecars).items():
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return folder


@contextmanager
def calling(
    folder: Path, *backends: str, sidecars: Mapping[str, str] | None = None, **settings: Any
) -> Iterator[Calls]:
    """A server with these workflows, once it knows what its backends have."""
    workflows = workflow_folder(folder / "workflows", **(sidecars or {}))
    data = folder / "data"
    with (
        serving(data, *backends, workflows=workflows, **settings) as served,
        httpx.Client(base_url=served.calls.url, timeout=30) as client,
    ):
        if backends:
            wait_until(lambda: len(served.app.state.host.catalog.nodes) == len(backends))
        yield Calls(served, client)


class Calls:
    """Calls of the workflows of one server."""

    def __init__(self, served: Served, client: httpx.Client) -> None:
        self.served = served
        self.client = client

    def call(self, name: str, inputs: object = None, **others: Any) -> httpx.Response:
        """The answer to a call in JSON; *headers* go along, all else is part of its body."""
        headers = others.pop("headers", {})
        body = ({} if inputs is None else {"inputs": inputs}) | others
        return self.client.post(f"/api/workflows/{name}/jobs", json=body, headers=headers)

    def form(self, name: str, **parts: Any) -> httpx.Response:
        """The answer to a call as a form: *data* are its fields, *files* its files."""
        parts.setdefault("files", {})
        if not parts["files"]:
            parts["files"] = {name: (None, text) for name, text in parts.pop("data").items()}
        return self.client.post(f"/api/workflows/{name}/jobs", **parts)

    def done(self, answer: httpx.Response) -> Document:
        """The job that was made, once it is over; it must succeed."""
        assert answer.status_code in (200, 201, 202), answer.text
        job = self.served.calls.until_over(answer.json()["id"])
        assert job["status"] == "succeeded", job
        return job

    def asset(self, content: bytes, name: str = "photo.png", kind: str = "image/png") -> Document:
        """A new asset."""
        return self.served.calls.upload(content, name, kind).json()

    def has_asset(self, id: str) -> bool:
        """Whether there is such an asset."""
        return self.client.get(f"/api/v2/assets/{id}").status_code == 200

    def picture(self, job: Document) -> Image.Image:
        """The first picture that a job made."""
        output = next(one for one in job["outputs"] if one["type"] == "image")
        content = self.client.get(output["url"]).content
        return Image.open(io.BytesIO(content))

    def waiting(self) -> int:
        """How many jobs there are."""
        return len(self.served.calls.jobs())


def problems(answer: httpx.Response) -> dict[str, str]:
    """What is wrong with which input, as a refused call tells."""
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert error["code"] == "invalid_inputs", error
    found: dict[str, str] = error["details"]["inputs"]
    return found


def code(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal."""
    return answer.status_code, answer.json()["error"]["code"]


def png(color: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (8, 8)) -> bytes:
    """A small picture."""
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    return file.getvalue()


__all__ = ["NOWHERE", "Calls", "Document", "calling", "code", "png", "problems", "workflow_folder"]
