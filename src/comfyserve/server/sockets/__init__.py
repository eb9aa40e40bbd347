"""The WebSocket API at ``/api/ws``: hand in, follow and cancel many jobs on one connection.

`docs/websocket.md` tells every message. `route` accepts a connection, `session` talks with its
client, `messages` reads and words what is said, `outbox` sends it, `follows` listens to jobs.
"""

from __future__ import annotations

from comfyserve.server.sockets.route import PATH, router
from comfyserve.server.sockets.sockets import Sockets

__all__ = ["PATH", "Sockets", "router"]
