"""Runs a workflow of a comfyserve over its WebSocket API, and saves what it makes.

python client.py http://127.0.0.1:8189 text_to_image prompt="a fox in the snow" steps=12

Needs aiohttp. A file goes in as image=@cat.png. Where the server asks for a key, it is taken from
COMFYSERVE_TOKEN. A connection that breaks is made again, and nothing that lasts is missed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import mimetypes
import os
import sys
import uuid
from pathlib import Path

import aiohttp

OVER = ("succeeded", "failed", "canceled", "expired")
TRIES = 30


class Run:
    """One job: what is known of it outlives the connections that it is followed on."""

    def __init__(self, workflow: str, inputs: dict) -> None:
        self.submission = {"workflow": workflow, "inputs": inputs}
        # Sent again after a broken connection, it is still the same job.
        self.submission["idempotency_key"] = str(uuid.uuid4())
        self.job_id: str | None = None
        self.after = 0
        self.status = ""
        self.outputs: list[dict] = []

    async def talk(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Submit the job, or go on after its last number; return once it is over."""
        if token := os.environ.get("COMFYSERVE_TOKEN"):
            await socket.send_json({"type": "auth", "token": token})
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                self.show(message.data)
                continue
            said = json.loads(message.data)
            match said["type"]:
                case "ready" if self.job_id is None:
                    await socket.send_json({"type": "submit", "id": 1, **self.submission})
                case "ready":
                    following = {"job_id": self.job_id, "after": self.after}
                    await socket.send_json({"type": "follow", "id": 2, **following})
                case "submitted":
                    self.job_id = said["job"]["id"]
                    print("job", self.job_id)
                case "event":
                    self.hear(said)
                case "error":
                    raise SystemExit(said["error"]["message"])
            if self.status in OVER:
                return

    def hear(self, said: dict) -> None:
        """An event: those with a number come once and in order, the others are only passing."""
        self.after = said["seq"] or self.after
        data = said["data"]
        match said["event"]:
            case "status":
                self.status = data["status"]
                print(self.status, data.get("error") or "")
            case "progress":
                print(f"{data['value']:.0%}", data["current_node_class"] or "")
            case "output":
                self.outputs.append(data)
            case "log":
                print(data["level"], data["message"])

    def show(self, message: bytes) -> None:
        """A preview: the length of its head in four bytes, the head as JSON, the picture."""
        size = int.from_bytes(message[:4], "big")
        head = json.loads(message[4 : 4 + size])
        print("preview of", head["job_id"], head["content_type"], len(message) - 4 - size, "bytes")


async def main(server: str, workflow: str, *values: str) -> None:
    run = Run(workflow, dict(map(read_value, values)))
    async with aiohttp.ClientSession() as session:
        for _ in range(TRIES):
            try:
                async with session.ws_connect(f"{server}/api/ws", max_msg_size=0) as socket:
                    await run.talk(socket)
            except aiohttp.ClientError as error:
                print("once more:", error)
            if run.status in OVER:
                break
            await asyncio.sleep(1)
        for output in run.outputs:
            async with session.get(output["url"]) as answer:
                answer.raise_for_status()
                save(output["name"], await answer.read())
    if run.status != "succeeded":
        raise SystemExit(f"The job ended as {run.status or 'nobody knows'}.")


def save(name: str, content: bytes) -> None:
    """Write an output into this folder, whatever folder its name has."""
    path = Path(Path(name).name)
    path.write_bytes(content)
    print("saved", path)


def read_value(text: str) -> tuple[str, object]:
    """NAME=VALUE: a number or a text, and with @ in front the content of a file."""
    name, _, value = text.partition("=")
    if value.startswith("@"):
        content_type = mimetypes.guess_type(value)[0] or "application/octet-stream"
        content = base64.b64encode(Path(value[1:]).read_bytes()).decode()
        return name, f"data:{content_type};base64,{content}"
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    asyncio.run(main(*sys.argv[1:]))
