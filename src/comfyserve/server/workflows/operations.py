"""What the routes of the catalogue take and answer, as the OpenAPI document tells it."""

from __future__ import annotations

from typing import Any, Final

from comfyserve.server.operations import busy, content, octets, operation, query, told

NAME: Final = {
    "name": "name",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "The name of a workflow.",
}
_IF_NONE_MATCH: Final = {
    "name": "If-None-Match",
    "in": "header",
    "schema": {"type": "string"},
    "description": "The `ETag` of what the caller has: 304 where nothing changed.",
}
_NOT_FOUND: Final = told("`workflow_not_found`: none has this name, or the key may not run it.")
_STARTING: Final = told("`server_starting`: come again in a moment; or `store_unavailable`.")
_UNCHANGED: Final = {"description": "The caller has it."}
_FILE: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {"schema": {"$ref": "#/components/schemas/WorkflowForm"}},
    },
}

LIST_WORKFLOWS: Final = operation(
    "listWorkflows",
    "workflows",
    {
        200: told("The workflows that the caller may run.", "WorkflowList"),
        304: _UNCHANGED,
        422: told("`invalid_request`."),
        503: _STARTING,
    },
    parameters=(_IF_NONE_MATCH,),
)

GET_WORKFLOW: Final = operation(
    "getWorkflow",
    "workflows",
    {
        200: told("What it takes and gives.", "Workflow"),
        304: _UNCHANGED,
        404: _NOT_FOUND,
        422: told("`invalid_request`."),
        503: _STARTING,
    },
    parameters=(NAME, _IF_NONE_MATCH),
)

GET_THUMBNAIL: Final = operation(
    "getWorkflowThumbnail",
    "workflows",
    {
        200: octets("A picture of it.", "image/*"),
        304: _UNCHANGED,
        404: told("`workflow_not_found`, or `not_found` where it has no picture."),
        503: _STARTING,
    },
    parameters=(
        NAME,
        query("v", {"type": "string"}, "The version, for which the picture may be kept for good."),
    ),
)

INSPECT_WORKFLOW: Final = operation(
    "inspectWorkflow",
    "workflows",
    {
        200: told("What it would be here.", "InspectedWorkflow"),
        422: told("`workflow_unreadable`, `invalid_workflow` or `invalid_request`."),
    },
    413,
    parameters=(query("name", {"type": "string"}, "What to call it; else the file's name."),),
)
INSPECT_WORKFLOW["openapi_extra"]["requestBody"] = _FILE

PUT_WORKFLOW: Final = operation(
    "putWorkflow",
    "workflows",
    {
        201: told("It is on offer now.", "Workflow"),
        200: told("It is on offer instead of the version before.", "Workflow"),
        409: told("`workflow_name_refused` or `workflow_in_folder`."),
        422: told("`workflow_unreadable`, `invalid_workflow` or `invalid_request`."),
        503: _STARTING,
    },
    413,
    507,
    parameters=(NAME,),
)
PUT_WORKFLOW["openapi_extra"]["requestBody"] = _FILE

DELETE_WORKFLOW: Final = operation(
    "deleteWorkflow",
    "workflows",
    {
        204: {"description": "It is no longer on offer; its jobs go on."},
        404: _NOT_FOUND,
        409: told("`workflow_in_folder`: only who has the folder can take it away."),
        503: _STARTING,
    },
    parameters=(NAME,),
)

_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "description": "For a day the same call under it gives the same job, another is refused.",
}
_PREFER: Final = {
    "name": "Prefer",
    "in": "header",
    "schema": {"type": "string", "examples": ["wait=30"]},
    "description": "`wait=N`: answer once the job is over, or after N seconds (300 at most).",
}
_REFUSED: Final = told(
    "`invalid_inputs` (a sentence for each in `details.inputs`), `invalid_workflow`, "
    "`missing_asset`, `idempotency_key_reuse`, `metadata_invalid` or `invalid_request`."
)

CALL_WORKFLOW: Final = operation(
    "callWorkflow",
    "workflows",
    {
        201: told("A job was made.", "Job"),
        200: {
            "description": "The job is over (`Prefer`), or was made before under the same key "
            "(`Idempotent-Replay: true`), or its events follow (`Accept: text/event-stream`).",
            "content": {
                **content("application/json", "Job"),
                "text/event-stream": {"schema": {"type": "string"}},
            },
        },
        202: told("The job goes on, though its end was waited for.", "Job"),
        404: _NOT_FOUND,
        422: _REFUSED,
        429: busy("`queue_full`, `too_many_jobs`, `too_many_streams` or `rate_limited`."),
        503: _STARTING,
    },
    413,
    507,
    parameters=(NAME, _KEY, _PREFER),
)
CALL_WORKFLOW["openapi_extra"]["requestBody"] = {
    "required": True,
    "content": {
        **content("application/json", "WorkflowCall"),
        "multipart/form-data": {"schema": {"type": "object", "additionalProperties": True}},
    },
}

VALIDATE_CALL: Final = operation(
    "validateCall",
    "workflows",
    {
        200: told("What would come of the call; nothing was queued or kept.", "CallValidity"),
        404: _NOT_FOUND,
        422: told("`metadata_invalid` or `invalid_request`."),
        503: _STARTING,
    },
    413,
    parameters=(NAME,),
    body=("application/json", "CallToValidate"),
)
