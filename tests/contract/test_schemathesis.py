"""The official document, asked of a real server: everything that it allows, and whatever comes.

Each operation is asked twice: as generated, where ids are made up and graphs are random, and of
what really exists. The seed is fixed and told, so that a failure comes again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.request import Request, urlopen

import pytest
import schemathesis
from comfy_low import models
from hypothesis import HealthCheck, Phase, seed, settings
from pydantic import BaseModel
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.contract.graphs import picture
from tests.contract.test_document import OFFICIAL
from tests.servers import RunningServer

SEED = 20_25
EXAMPLES = 20
PATIENCE = 10.0
"""Seconds for one answer; the only streams asked for are of jobs that are over."""

DEVIATIONS = {
    405: "methods that a path does not have; the document is silent about them",
    413: "bodies have a limit, which the document is silent about",
    422: "every malformed request; the document knows it on some routes only",
    503: "the server is about to stop, or cannot reach its disk",
}
"""Statuses beyond those the document names for an operation, and why they come all the same."""

FRAMES: Mapping[str, type[BaseModel]] = {
    "status": models.StatusEvent,
    "progress": models.Progress,
    "preview": models.PreviewEvent,
    "output": models.Output,
    "log": models.LogEvent,
}
"""What the document says of each kind of frame, as models were generated from it."""

schema = schemathesis.openapi.from_path(OFFICIAL)


@dataclass(frozen=True, slots=True)
class Known:
    """What exists on the server: a job that is over, its output, an asset that is not missed."""

    job_id: str
    output_id: str
    spare_id: str
    hash: str


@pytest.fixture(scope="session")
def known(server: RunningServer) -> Known:
    """A job that ran, and what there is of it."""
    job = _asked(server, "/api/v2/jobs", {"workflow": picture()})
    with urlopen(f"{server.url}/api/v2/jobs/{job['id']}/events", timeout=30) as events:
        events.read()  # it ends when the job does
    (output,) = _asked(server, f"/api/v2/jobs/{job['id']}")["outputs"]
    spare = _asked(server, "/api/v2/assets/from-hash", {"hash": output["hash"]})
    return Known(job["id"], output["id"], spare["id"], output["hash"])


@schema.parametrize()
@seed(SEED)
@settings(
    max_examples=EXAMPLES,
    phases=[Phase.explicit, Phase.generate],
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_the_document_holds(case: Case[Any], server: RunningServer, known: Known) -> None:
    """No answer is a server error, and each has a status and a body that the document knows."""
    print(f"seed {SEED}")
    _check(case, server)
    _check(_of_what_exists(case, known), server)


def _of_what_exists(case: Case[Any], known: Known) -> Case[Any]:
    """The same request about a job, an asset or bytes that are there, or with a graph that runs."""
    if "id" in case.path_parameters:
        asset_id = known.spare_id if case.method == "DELETE" else known.output_id
        case.path_parameters["id"] = known.job_id if "/jobs/" in case.path else asset_id
    if "hash" in case.path_parameters:
        case.path_parameters["hash"] = known.hash
    if isinstance(case.body, dict):
        # What is left of the made-up values may be anything that the document allows.
        real: dict[str, Any] = {"workflow": picture(), "hash": known.hash, "file": b"some bytes"}
        real |= {"content_type": "text/plain", "file_path": "contract.txt"}
        allowed = (*real, "extra_data", "tags", "expires_in")
        case.body = {name: real.get(name, case.body[name]) for name in case.body if name in allowed}
    case.headers.pop("Idempotency-Key", None)  # it was used up a moment ago
    return case


def _check(case: Case[Any], server: RunningServer) -> None:
    answer = case.call(base_url=server.url, timeout=PATIENCE)
    if answer.status_code in DEVIATIONS and not _is_documented(case, answer.status_code):
        refusal = answer.json()["error"]
        assert refusal["code"] and refusal["message"], case.as_curl_command()
        return
    checks = [not_a_server_error, status_code_conformance]
    if case.path.endswith("/events") and answer.status_code == 200:
        _check_frames(answer.text)
    elif not case.path.endswith("/content"):  # its type is that of the file
        checks += [response_schema_conformance, content_type_conformance]
    case.validate_response(answer, checks=checks)


def _check_frames(stream: str) -> None:
    """Each frame of an event stream has a name that the document knows, and that name's data."""
    frames = [frame for frame in stream.split("\n\n") if frame and not frame.startswith(":")]
    for frame in frames:
        name, data = frame.split("\n")
        FRAMES[name.removeprefix("event: ")].model_validate_json(data.removeprefix("data: "))
    assert frames[-1].startswith("event: status")


def _is_documented(case: Case[Any], status: int) -> bool:
    return str(status) in case.operation.definition.raw["responses"]


def _asked(server: RunningServer, path: str, body: object = None) -> dict[str, Any]:
    """The JSON answered to a GET, or to a POST of *body*."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(server.url + path, data, {"Content-Type": "application/json"})
    with urlopen(request, timeout=PATIENCE) as answer:
        document: dict[str, Any] = json.load(answer)
    return document
