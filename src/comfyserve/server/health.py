"""Whether the server lives, whether it could do its work now, and why not."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from comfyserve.server.documents import answer

router = APIRouter(tags=["health"])

_FRESH = {"Cache-Control": "no-store"}


@router.api_route("/healthz", methods=["GET", "HEAD"], include_in_schema=False)
async def healthz() -> Response:
    """The process lives and answers; whether backends do is `/readyz`'s matter."""
    return answer({"status": "healthy"}, headers=_FRESH)


@router.api_route("/readyz", methods=["GET", "HEAD"], include_in_schema=False)
async def readyz(request: Request) -> Response:
    """Jobs that are handed in now would run; 503 with every reason where they would not."""
    found = await request.app.state.host.is_ready()
    document = {
        "status": "ready" if found.is_ready else "unready",
        "reasons": list(found.reasons),
    }
    return answer(document, 200 if found.is_ready else 503, _FRESH)


@router.api_route("/api/v2/health", methods=["GET", "HEAD"], include_in_schema=False)
async def v2_health(request: Request) -> Response:
    """The server lives; *upstream* is what is known of the backends, none of which is asked."""
    members = request.app.state.host.fleet.members
    upstream = {
        "status": "healthy" if any(member.is_up for member in members) else "unreachable",
        "backends": len(members),
        "backends_up": sum(member.is_up for member in members),
    }
    document = {"status": "healthy", "server": "comfyserve", "upstream": upstream}
    return answer(document, headers=_FRESH)
