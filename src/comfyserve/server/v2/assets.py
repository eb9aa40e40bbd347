"""``/api/v2/assets``: bring bytes, ask for them, refer to those that are kept, delete them."""

from __future__ import annotations

import time
from contextlib import aclosing

from fastapi import Request, Response

from comfyserve.denials import InvalidRequest
from comfyserve.job_queue import UsedKey
from comfyserve.server import operations
from comfyserve.server.documents import answer, asset_document
from comfyserve.server.links import V2
from comfyserve.server.requests import (
    content_owner_of,
    host_of,
    idempotency_key_of,
    links_of,
    owner_of,
    read_object,
    refuse_unknown,
    settings_of,
)
from comfyserve.server.routing import direct_router
from comfyserve.server.v2.content import content_answer
from comfyserve.server.v2.uploads import UploadForm

router = direct_router(f"{V2}/assets")


@router.post("", **operations.POST_ASSETS)
async def post_assets(request: Request) -> Response:
    """Upload an asset (single-call multipart)."""
    refuse_unknown(request.query_params, (), "The query")
    key = idempotency_key_of(request)
    form = UploadForm(request, settings_of(request).upload_cap)
    async with aclosing(form.file()) as chunks:
        minted = await host_of(request).asset_library.upload_told_later(
            chunks,
            lambda: form.details,
            owner=owner_of(request),
            key=None if key is None else _used_key(request, key),
        )
    links = links_of(request)
    document = asset_document(minted.asset, links, minted.created_new)
    location = {"Location": links.asset(minted.asset.id)}
    return answer(document, 201 if minted.created_new else 200, location)


@router.post("/from-hash", **operations.ASSET_FROM_HASH)
async def asset_from_hash(request: Request) -> Response:
    """Mint an asset over existing bytes (dedup fast-path)."""
    refuse_unknown(request.query_params, (), "The query")
    body = await read_object(request, ("hash", "file_path", "tags", "expires_in"))
    hash, path, tags, seconds = (
        body.get(name) for name in ("hash", "file_path", "tags", "expires_in")
    )
    if not isinstance(hash, str):
        raise InvalidRequest("The body needs 'hash', as in 'blake3:<hex>'.", {"field": "hash"})
    if path is not None and not isinstance(path, str):
        raise InvalidRequest("'file_path' has to be a text.", {"field": "file_path"})
    if tags is not None and not _is_list_of_texts(tags):
        raise InvalidRequest("'tags' has to be a list of texts.", {"field": "tags"})
    if seconds is not None and (not isinstance(seconds, int) or isinstance(seconds, bool)):
        raise InvalidRequest("'expires_in' has to be whole seconds.", {"field": "expires_in"})
    minted = await host_of(request).asset_library.from_hash(
        hash, owner=owner_of(request), file_path=path, tags=tags or (), expires_in=seconds
    )
    links = links_of(request)
    document = asset_document(minted.asset, links, minted.created_new)
    location = {"Location": links.asset(minted.asset.id)}
    return answer(document, 200 if minted.is_same else 201, location)


@router.head("/by-hash/{hash}", **operations.HEAD_ASSET_BY_HASH)
async def head_asset_by_hash(request: Request) -> Response:
    """Existence check for a blob by blake3 hash."""
    hash = request.path_params["hash"]
    is_there = await host_of(request).asset_library.has(hash, owner_of(request))
    return Response(status_code=200 if is_there else 404)


@router.get("/{id}", **operations.GET_ASSET)
async def get_asset(request: Request) -> Response:
    """Asset metadata."""
    library = host_of(request).asset_library
    asset = await library.get(request.path_params["id"], owner_of(request))
    return answer(asset_document(asset, links_of(request)))


@router.delete("/{id}", **operations.DELETE_ASSET)
async def delete_asset(request: Request) -> Response:
    """Delete an asset record; the bytes go once nothing refers to them."""
    await host_of(request).asset_library.delete(request.path_params["id"], owner_of(request))
    return Response(status_code=204)


@router.get("/{id}/content", **operations.GET_ASSET_CONTENT)
@router.head("/{id}/content", include_in_schema=False)
async def get_asset_content(request: Request) -> Response:
    """Asset bytes."""
    library = host_of(request).asset_library
    asset = await library.get(request.path_params["id"], content_owner_of(request))
    return content_answer(request, asset, library)


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _used_key(request: Request, key: str) -> UsedKey:
    # The bytes are not known yet, so nothing tells one upload from another.
    expires_at = time.time() + settings_of(request).idempotency_retention
    return UsedKey(owner_of(request), "POST /assets", key, "", expires_at)
