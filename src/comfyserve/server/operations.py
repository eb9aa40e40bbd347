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
    403: "`forbidden` or `forbidden_origin`: not taken from where it comes.",
    404: "`not_found`.",
    413: "`payload_too_large`.",
    500: "`upstream_error`: something unexpected; the server's log tells it by the request id.",
    503: "`store_unavailable`: the server's data cannot be used just now.",
    507: "`disk_cap_reached` or `store_unavailable`: no room for more bytes.",
}
_EVERYWHERE: Final = (403, 500, 503)

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


def _query(name: str, schema: Mapping[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _told(description: str, model: str = "ErrorEnvelope") -> dict[str, Any]:
    return {"description": description, "content": _content("application/json", model)}


def _content(media_type: str, model: str) -> dict[str, Any]:
    return {media_type: {"schema": {"$ref": f"#/components/schemas/{model}"}}}


def _busy(description: str) -> dict[str, Any]:
    return {**_told(description), "headers": _RETRY_AFTER}


def _bytes(description: str, media_type: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {media_type: {"schema": {"type": "string", "format": "binary"}}},
    }


def _operation(
    id: str,
    tag: str,
    responses: Mapping[int, Mapping[str, Any]],
    *errors: int,
    parameters: tuple[Mapping[str, Any], ...] = (),
    body: tuple[str, str] | None = None,
    **others: Any,
) -> Operation:
    extra: dict[str, Any] = {"parameters": list(parameters)}
    if body is not None:
        extra["requestBody"] = {"required": True, "content": _content(*body)}
    told = {code: _told(_ERRORS[code]) for code in (*errors, *_EVERYWHERE)}
    status, *_ = responses
    return {
        "operation_id": id,
        "tags": [tag],
        "status_code": status,
        "response_class": Response,
        "responses": {**told, **responses},
        "openapi_extra": extra,
        **others,
    }


POST_JOBS: Final = _operation(
    "postJobs",
    "jobs",
    {
        201: _told("Job created and queued.", "Job"),
        422: _told(
            "`invalid_workflow` (with `details.node_errors`), `workflow_format_ui`, "
            "`missing_asset` (with `details.missing_ids`), `idempotency_key_reuse`, "
            "`metadata_invalid` or `invalid_request`."
        ),
        429: _busy("`queue_full`."),
    },
    413,
    507,
    parameters=(_KEY,),
    body=("application/json", "NewJob"),
)

LIST_JOBS: Final = _operation(
    "listJobs",
    "jobs",
    {
        200: _told("A page of jobs.", "JobPage"),
        422: _told("`invalid_request`, `invalid_cursor` or `invalid_metadata_filter`."),
    },
    parameters=(
        _query("status", {"type": "string"}, "Statuses, separated by commas."),
        _query("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 50}, ""),
        _query("cursor", {"type": "string"}, "`next_cursor` of the page before."),
        _query("workflow", {"type": "string"}, "The name of a workflow."),
        _query(
            "metadata",
            {"type": "object", "maxProperties": 3, "additionalProperties": {"type": "string"}},
            "Labels that the jobs have, as `metadata[key]=value`.",
        )
        | {"style": "deepObject", "explode": True},
    ),
)

GET_JOB: Final = _operation(
    "getJob", "jobs", {200: _told("The job.", "Job")}, 404, parameters=(_ID,)
)

GET_JOB_WORKFLOW: Final = _operation(
    "getJobWorkflow",
    "jobs",
    {200: _told("The graph that the job runs.", "JobWorkflow")},
    404,
    parameters=(_ID,),
)

GET_JOB_EVENTS: Final = _operation(
    "getJobEvents",
    "jobs",
    {
        200: _bytes(
            "Frames of `event:` and `data:`: `status`, `progress`, `preview`, `output`. How the "
            "job stands comes first, every `output` before the terminal `status`, which is last.",
            "text/event-stream",
        ),
        429: _busy("`too_many_streams`."),
    },
    404,
    parameters=(_ID,),
)

CANCEL_JOB: Final = _operation(
    "cancelJob",
    "jobs",
    {200: _told("How the job stands now.", "Job")},
    404,
    parameters=(_ID,),
)

POST_ASSETS: Final = _operation(
    "postAssets",
    "assets",
    {
        201: _told("The bytes were new; asset minted.", "Asset"),
        200: _told("The bytes were there; asset minted over them.", "Asset"),
        409: _told("`hash_mismatch`."),
        422: _told("`idempotency_key_reuse` or `invalid_request`."),
    },
    413,
    507,
    parameters=(_KEY,),
    body=("multipart/form-data", "UploadForm"),
)

ASSET_FROM_HASH: Final = _operation(
    "assetFromHash",
    "assets",
    {
        201: _told("Asset minted over the bytes.", "Asset"),
        200: _told("The same reference was there; it is given again.", "Asset"),
        404: _told("`blob_not_found`: no bytes that the caller may mint from."),
        422: _told("`invalid_request`."),
    },
    413,
    body=("application/json", "HashReference"),
)

HEAD_ASSET_BY_HASH: Final = _operation(
    "headAssetByHash",
    "assets",
    {
        200: {"description": "The bytes are there, and the caller may mint from them."},
        404: {"description": "No bytes that the caller may mint from."},
    },
    parameters=(_HASH,),
)

GET_ASSET: Final = _operation(
    "getAsset", "assets", {200: _told("The asset.", "Asset")}, 404, parameters=(_ID,)
)

DELETE_ASSET: Final = _operation(
    "deleteAsset",
    "assets",
    {
        204: {"description": "Record deleted."},
        409: _told("`asset_in_use`: a job that is not over needs it."),
    },
    404,
    parameters=(_ID,),
)

GET_ASSET_CONTENT: Final = _operation(
    "getAssetContent",
    "assets",
    {
        200: _bytes("All bytes.", "*/*"),
        206: _bytes("The bytes of the range.", "*/*"),
        304: {"description": "The caller has them (`If-None-Match`)."},
        404: _told("`not_found`, or `output_unavailable` where the bytes are gone for good."),
        416: _told("`range_not_satisfiable`; `Content-Range` tells the size."),
    },
    parameters=(_ID, _RANGE),
)

DELETE_JOB: Final = _operation(
    "deleteJob",
    "jobs",
    {
        204: {"description": "The job, its events and its outputs are forgotten."},
        409: _told("`job_unfinished`: cancel it first."),
    },
    404,
    parameters=(_ID,),
)

FOLLOW_JOB: Final = _operation(
    "followJob",
    "jobs",
    {
        200: _bytes(
            "Frames as on the v2 stream, and `log`; those that last have an `id` to resume after.",
            "text/event-stream",
        ),
        204: {"description": "The job is over and was told to its end."},
        422: _told("`invalid_request`: no number of an event."),
        429: _busy("`too_many_streams`."),
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
        _query("after", {"type": "integer", "minimum": 0}, "The same, in the address."),
    ),
)

OBJECT_INFO: Final = _operation(
    "getObjectInfo",
    "backends",
    {
        200: {
            "description": "The backends' nodes by class, as ComfyUI describes them.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        },
        502: _told("`upstream_error`."),
    },
)
