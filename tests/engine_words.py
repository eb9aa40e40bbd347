"""What a socket hears, put into words that do not depend on time, ids or file numbers."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

NUMBERED = re.compile(r"_\d{5}_")
TEMPORARY = re.compile(r"ComfyUI_temp_[a-z]{5}")


@dataclass(slots=True)
class Heard:
    """What one socket heard, as words, each with the prompt it is about."""

    words: list[tuple[str | None, str]] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)
    stepping: set[str] = field(default_factory=set)
    files: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    greeting: str | None = None
    about: str | None = None

    def note(self, frame: str | bytes) -> None:
        """Write down one frame."""
        if isinstance(frame, bytes):
            self.words.append((self.about, _binary_word(frame)))
            return
        message = json.loads(frame)
        kind, data = message["type"], message["data"]
        if kind == "status":
            self.greeting = self.greeting or data.get("sid")
            return
        prompt = data.get("prompt_id")
        if kind == "feature_flags":
            self.words.append((None, kind))
            return
        self.about = prompt or self.about
        self.words.append((self.about, _word(kind, data)))
        if kind == "executed":
            self.files[prompt, data["node"]] = _file_names(data["output"])
        if kind == "progress" and prompt:
            self.stepping.add(prompt)
        if kind == "executing" and data["node"] is None:
            self.ended.add(prompt)

    def about_prompt(self, prompt: str | None) -> list[str]:
        """What was heard of one prompt, where a step that repeats counts once."""
        words: list[str] = []
        for about, word in self.words:
            if about == prompt and word not in words[-3:]:
                words.append(word)
        return words


def _binary_word(frame: bytes) -> str:
    event, kind = struct.unpack(">II", frame[:8])
    if event == 4:
        return f"picture of {json.loads(frame[8 : 8 + kind])['node_id']}"
    return f"picture {kind}" if event == 1 else "text"


def recorded_picture(decoded: dict[str, Any]) -> str:
    """The same word, from what the recorder read in a frame that it may have cut short."""
    match decoded["event"]:
        case 1:
            return f"picture {decoded['image_type']}"
        case 4:
            return f"picture of {decoded['metadata']['node_id']}"
        case _:
            return "text"


def _word(kind: str, data: dict[str, Any]) -> str:
    match kind:
        case "progress_state":
            return f"state {dict(_states(data['nodes']))}"
        case "progress":
            return f"progress {data['node']} of {data['max']}"
        case "executing":
            return f"executing {data['node']}" + ("" if "prompt_id" in data else " again")
        case "execution_cached":
            return f"cached {sorted(data['nodes'])}"
        case "executed":
            return f"executed {data['node']} {same_names(data['output'])}"
        case "execution_error" | "execution_interrupted":
            done = sorted(data["executed"])
            return f"{kind} {data['node_id']} {data['node_type']} after {done}"
        case _:
            return kind


def _file_names(output: dict[str, Any]) -> list[str]:
    items = [item for value in output.values() if isinstance(value, list) for item in value]
    return [item["filename"] for item in items if isinstance(item, dict) and "filename" in item]


def _states(nodes: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for node_id, node in nodes.items():
        assert node["node_id"] == node["real_node_id"] == node_id
        yield node_id, f"{node['state']} of {node['max']:g}"


def same_names(value: Any) -> Any:
    """*value* with the numbers of saved files, and random names, taken out."""
    text = NUMBERED.sub("_NNNNN_", json.dumps(value, sort_keys=True))
    return json.loads(TEMPORARY.sub("ComfyUI_temp_xxxxx", text))
