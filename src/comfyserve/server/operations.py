"""What each route takes and answers, as the OpenAPI document tells it.

Shapes are only named here: they are those of `models`, which are made when somebody asks for the
document, so that a server need not wait for them to begin.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastapi import Response

Operation = dict[str, Any]
"""The arguments of a route's declaration."""

_ERRORS: Final[Mapping[int, str]] = {
    401: "`unauthorized`: the server has keys, and this request has none that is good.",
    403: "`forbidden` or `forbidden_origin`: the key does not allow it, or it is not taken from "
    "where it comes.",
    429: "`rate_limited`: the key was used as often as it may be.",
    404: "`not_found`.",
    413: "`payload_too_large`.",
    500: "`upstream_error`: something unexpected; the server's log tells it by the request id.",
    503: "`store_unavailable`: the server's data cannot be used just now.",
    507: "`disk_cap_reached` or `store_unavailable`: no room for more bytes.",
}
_EVERYWHERE: Final = (401, 403, 429, 500, 503)

_ID: Final = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
_HASH: Final = {
    "name": "hash",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "example": "blake3:9f8a1c0d..."},
}
_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "description": "Single use: a later request with the same key is refused, never repeated.",
}
_RANGE: Final = {
    "name": "Range",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "example": "bytes=0-1048575"},
}
_RETRY_AFTER: Final = {
    "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds to wait."}
}


def query(name: str, schema: Mapping[str, Any], description: str) -> dict[str, Any]:
    """A parameter in the query."""
    return {"name": name, "in": "query", "schema": schema, "description": description}


def told(description: str, model: str = "ErrorEnvelope") -> dict[str, Any]:
    """An answer with a JSON body of the shape *model*."""
    return {"description": description, "content": content("application/json", model)}


def content(media_type: str, model: str) -> dict[str, Any]:
    """A body of one media type and the shape *model*."""
    return {media_type: {"schema": {"$ref": f"#/components/schemas/{model}"}}}


def busy(description: str) -> dict[str, Any]:
    """A refusal that says when to come again."""
    return {**told(description), "headers": _RETRY_AFTER}


def octets(description: str, media_type: str) -> dict[str, Any]:
    """An answer whose body is bytes."""
    return {
        "description": description,
        "content": {media_type: {"schema": {"type": "string", "format": "binary"}}},
    }


def operation(
    id: str,
    tag: str,
    responses: Mapping[int, Mapping[str, Any]],
    *errors: int,
    parameters: tuple[Mapping[str, Any], ...] = (),
    body: tuple[str, str] | None = None,
    **others: Any,
) -> Operation:
    """A route's declaration: its name and group, its answers, the usual *errors* besides.

    *body* is a media type and the shape of what is sent.
    """
    extra: dict[str, Any] = {"parameters": list(parameters)}
    if body is not None:
        extra["requestBody"] = {"required": True, "content": content(*body)}
    refusals = {
        code: (busy if code == 429 else told)(_ERRORS[code]) for code in (*errors, *_EVERYWHERE)
    }
    status, *_ = responses
    return {
        "operation_id": id,
        "tags": [tag],
        "status_code": status,
        "response_class": Response,
        "responses": {**refusals, **responses},
        "openapi_extra": extra,
        **others,
    }


POST_JOBS: Final = operation(
    "postJobs",
    "jobs",
    {
        201: told("Job created and queued.", "Job"),
        422: told(
            "`invalid_workflow` (with `details.node_errors`), `workflow_format_ui`, "
            "`missing_asset` (with `details.missing_ids`), `idempotency_key_reuse`, "
            "`metadata_invalid` or `invalid_request`."
        ),
        429: busy("`queue_full`, `too_many_jobs` or `rate_limited`."),
    },
    413,
    507,
    parameters=(_KEY,),
    body=("application/json", "NewJob"),
)

LIST_JOBS: Final = operation(
    "listJobs",
    "jobs",
    {
        200: told("A page of jobs.", "JobPage"),
        422: told("`invalid_request`, `invalid_cursor` or `invalid_metadata_filter`."),
    },
    parameters=(
        query("status", {"type": "string"}, "Statuses, separated by commas."),
        query("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 50}, ""),
        query("cursor", {"type": "string"}, "`next_cursor` of the page before."),
        query("workflow", {"type": "string"}, "The name of a workflow."),
        query(
            "metadata",
            {"type": "object", "maxProperties": 3, "additionalProperties": {"type": "string"}},
            "Labels that the jobs have, as `metadata[key]=value`.",
        )
        | {"style": "deepObject", "explode": True},
    ),
)

GET_JOB: Final = operation("getJob", "jobs", {200: told("The job.", "Job")}, 404, parameters=(_ID,))

GET_JOB_WORKFLOW: Final = operation(
    "getJobWorkflow",
    "jobs",
    {200: told("The graph that the job runs.", "JobWorkflow")},
    404,
    parameters=(_ID,),
)

GET_JOB_EVENTS: Final = operation(
    "getJobEvents",
    "jobs",
    {
        200: octets(
            "Frames of `event:` and `data:`: `status`, `progress`, `preview`, `output`. How the "
            "job stands comes first, every `output` before the terminal `status`, which is last.",
            "text/event-stream",
        ),
        429: busy("`too_many_streams` or `rate_limited`."),
    },
    404,
    parameters=(_ID,),
)

CANCEL_JOB: Final = operation(
    "cancelJob",
    "jobs",
    {200: told("How the job stands now.", "Job")},
    404,
    parameters=(_ID,),
)

POST_ASSETS: Final = operation(
    "postAssets",
    "assets",
    {
        201: told("The bytes were new; asset minted.", "Asset"),
        200: told("The bytes were there; asset minted over them.", "Asset"),
        409: told("`hash_mismatch`."),
        422: told("`idempotency_key_reuse` or `invalid_request`."),
    },
    413,
    507,
    parameters=(_KEY,),
    body=("multipart/form-data", "UploadForm"),
)

ASSET_FROM_HASH: Final = operation(
    "assetFromHash",
    "assets",
    {
        201: told("Asset minted over the bytes.", "Asset"),
        200: told("The same reference was there; it is given again.", "Asset"),
        404: told("`blob_not_found`: no bytes that the caller may mint from."),
        422: told("`invalid_request`."),
    },
    413,
    body=("application/json", "HashReference"),
)

HEAD_ASSET_BY_HASH: Final = operation(
    "headAssetByHash",
    "assets",
    {
        200: {"description": "The bytes are there, and the caller may mint from them."},
        404: {"description": "No bytes that the caller may mint from."},
    },
    parameters=(_HASH,),
)

GET_ASSET: Final = operation(
    "getAsset", "assets", {200: told("The asset.", "Asset")}, 404, parameters=(_ID,)
)

DELETE_ASSET: Final = operation(
    "deleteAsset",
    "assets",
    {
        204: {"description": "Record deleted."},
        409: told("`asset_in_use`: a job that is not over needs it."),
    },
    404,
    parameters=(_ID,),
)

GET_ASSET_CONTENT: Final = operation(
    "getAssetContent",
    "assets",
    {
        200: octets("All bytes.", "*/*"),
        206: octets("The bytes of the range.", "*/*"),
        304: {"description": "The caller has them (`If-None-Match`)."},
        404: told("`not_found`, or `output_unavailable` where the bytes are gone for good."),
        416: told("`range_not_satisfiable`; `Content-Range` tells the size."),
    },
    parameters=(_ID, _RANGE),
)

DELETE_JOB: Final = operation(
    "deleteJob",
    "jobs",
    {
        204: {"description": "The job, its events and its outputs are forgotten."},
        409: told("`job_unfinished`: cancel it first."),
    },
    404,
    parameters=(_ID,),
)

FOLLOW_JOB: Final = operation(
    "followJob",
    "jobs",
    {
        200: octets(
            "Frames as on the v2 stream, and `log`; those that last have an `id` to resume after.",
            "text/event-stream",
        ),
        204: {"description": "The job is over and was told to its end."},
        422: told("`invalid_request`: no number of an event."),
        429: busy("`too_many_streams` or `rate_limited`."),
    },
    404,
    parameters=(
        _ID,
        {
            "name": "Last-Event-ID",
            "in": "header",
            "schema": {"type": "integer", "minimum": 0},
            "description": "Tell only what came after this event.",
        },
        query("after", {"type": "integer", "minimum": 0}, "The same, in the address."),
    ),
)

OBJECT_INFO: Final = operation(
    "getObjectInfo",
    "backends",
    {
        200: {
            "description": "The backends' nodes by class, as ComfyUI describes them.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        },
        502: told("`upstream_error`."),
    },
)

_BACKEND: Final = told("The backend.", "Backend")
_NO_BACKEND: Final = told("`backend_not_found`.")
_FOR_ADMINS: Final = told("`forbidden`: only an admin key manages backends; or `forbidden_origin`.")

LIST_BACKENDS: Final = operation(
    "listBackends",
    "backends",
    {
        200: told("All backends.", "BackendList"),
        403: _FOR_ADMINS,
        422: told("`invalid_request`."),
    },
)

ADD_BACKEND: Final = operation(
    "addBackend",
    "backends",
    {
        201: told("The backend, as it was found; it may be down.", "Backend"),
        403: _FOR_ADMINS,
        409: told("`backend_exists`."),
        422: told("`invalid_request`, `invalid_address`, or with `check` `backend_not_added`."),
    },
    413,
    parameters=(
        query("check", {"type": "boolean"}, "Add it only if a ComfyUI answers there now."),
    ),
    body=("application/json", "NewBackend"),
)

GET_BACKEND: Final = operation(
    "getBackend",
    "backends",
    {200: _BACKEND, 403: _FOR_ADMINS, 404: _NO_BACKEND},
    parameters=(_ID,),
)

REMOVE_BACKEND: Final = operation(
    "removeBackend",
    "backends",
    {
        200: told("It is gone; its jobs are back in the queue.", "RemovedBackend"),
        403: _FOR_ADMINS,
        404: _NO_BACKEND,
    },
    parameters=(_ID,),
)

DRAIN_BACKEND: Final = operation(
    "drainBackend",
    "backends",
    {200: _BACKEND, 403: _FOR_ADMINS, 404: _NO_BACKEND},
    parameters=(_ID,),
)

RESUME_BACKEND: Final = operation(
    "resumeBackend",
    "backends",
    {200: _BACKEND, 403: _FOR_ADMINS, 404: _NO_BACKEND},
    parameters=(_ID,),
)
