"""Runs one prompt after the other, node by node, and keeps what may be used again."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from typing import Any

from comfyserve.engine.folders import Folders
from comfyserve.engine.links import links
from comfyserve.engine.messages import Weight, event
from comfyserve.engine.node import Blocked, Interrupted, Node, Result
from comfyserve.engine.node_run import NodeRun, Progress, Speaker, as_json
from comfyserve.engine.output_cache import CachedGraph, OutputCache
from comfyserve.engine.prompt_queue import Chore, Outcome, Prompt
from comfyserve.engine.registry import Registry
from comfyserve.engine.run_order import RunOrder

OUT_OF_MEMORY_TYPE = "torch.OutOfMemoryError"  # the name that clients know it by
OUT_OF_MEMORY_ADVICE = "The engine ran out of memory. Smaller pictures or batches need less."

log = logging.getLogger(__name__)


class Executor:
    """The worker's tools: the nodes, the folders, the cache, and a way to be heard.

    *interrupted* tells whether the running prompt should end. `run` is for one thread only;
    `current` may be read by any.
    """

    def __init__(
        self,
        registry: Registry,
        folders: Folders,
        speaker: Speaker,
        interrupted: Callable[[], bool],
        *,
        previews: bool,
    ) -> None:
        self.registry = registry
        self.folders = folders
        self.speaker = speaker
        self.interrupted = interrupted
        self.previews = previews
        self.cache = OutputCache()
        self.current: tuple[str | None, str] | None = None
        """Whose prompt runs, and which node: what a socket that comes back is told."""

    def run(self, prompt: Prompt) -> Outcome:
        """Run *prompt* to its end, whatever that is. Never raises."""
        run = _Run(self, prompt)
        try:
            return run.outcome()
        except Exception as broken:
            log.exception("Prompt %s ended unexpectedly", prompt.prompt_id)
            return run.broken(broken)
        finally:
            self.current = None

    def do(self, chore: Chore) -> None:
        """Give back memory."""
        if chore.free_memory:
            self.cache.clear()
        if chore.unload_models:
            self.cache.clear()  # cached outputs hold models too
            self.registry.unload()


class _Run:
    """One prompt on its way through the executor."""

    def __init__(self, executor: Executor, prompt: Prompt) -> None:
        self.executor = executor
        self.prompt = prompt
        self.graph = prompt.graph
        self.registry = executor.registry
        self.progress = Progress(prompt.prompt_id)
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self.executed: list[str] = []
        self.shown: dict[str, Any] = {}
        self.completed = False

    def outcome(self) -> Outcome:
        self._record("execution_start")
        cache = self.executor.cache.view(self.graph, self.registry, self.executor.folders)
        self._record(
            "execution_cached", nodes=[each for each in self.graph if cache.get(each) is not None]
        )
        for node_id in self._order(cache):
            if not self._run_node(node_id, cache):
                break
        else:
            self._record("execution_success")
            self.completed = True
        return self._finished()

    def broken(self, error: BaseException) -> Outcome:
        """What is left to say when the engine itself failed."""
        self._record("execution_error", **self._error_details("", error, {}))
        return self._finished()

    def _finished(self) -> Outcome:
        meta = {node_id: _meta(node_id) for node_id in self.shown}
        return Outcome(self.shown, meta, tuple(self.messages), self.completed)

    def _order(self, cache: CachedGraph) -> RunOrder:
        def above(node_id: str) -> list[str]:
            linked = links(self.graph, node_id, self.registry).values()
            return [source for source, _ in linked if cache.get(source) is None]

        order = RunOrder(above, lambda node_id: self._node(node_id).output_node)
        for output in self.prompt.outputs:
            order.add(output)
        return order

    def _run_node(self, node_id: str, cache: CachedGraph) -> bool:
        """Run one node, or tell again what it gave last time. False if the prompt ends here."""
        known = cache.get(node_id)
        if known is not None:
            self._show(node_id, known)
            self._say_state(self.progress.finish(node_id))
            return True
        self._say_state(self.progress.start(node_id))
        self.executor.current = (self.prompt.client_id, node_id)
        self._tell_owner("executing", node=node_id, display_node=node_id)
        inputs: dict[str, Any] = {}
        try:
            inputs = self._inputs(node_id, cache)
            result = self._result(node_id, inputs)
        except Interrupted:
            self._record_interrupt(node_id)
            return False
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # a node may raise anything
            log.info("Node %s (%s) failed", node_id, self._node(node_id).name, exc_info=error)
            self._record("execution_error", **self._error_details(node_id, error, inputs))
            return False
        self._show(node_id, result)
        cache.keep(node_id, result)
        self._say_state(self.progress.finish(node_id))
        self.executed.append(node_id)
        return True

    def _inputs(self, node_id: str, cache: CachedGraph) -> dict[str, Any]:
        declared = self._node(node_id).inputs
        given = self.graph[node_id]["inputs"]
        inputs = {name: value for name, value in given.items() if name in declared}
        for name, (source, slot) in links(self.graph, node_id, self.registry).items():
            above = cache.get(source)
            assert above is not None, f"node {source} has not run before {node_id}"
            inputs[name] = above.values[slot]
        return inputs

    def _result(self, node_id: str, inputs: dict[str, Any]) -> Result:
        node = self._node(node_id)
        run = NodeRun(
            node_id,
            self.prompt,
            self.executor.folders,
            self.progress,
            self.executor.speaker,
            self.executor.interrupted,
            previews=self.executor.previews,
        )
        run.check_interrupted()
        blocked = next((value for value in inputs.values() if isinstance(value, Blocked)), None)
        if blocked is not None:
            self._say_blocked(node_id, blocked)
            return Result(tuple(Blocked() for _ in node.outputs))
        result = node.run(run, **inputs)
        if len(result.values) != len(node.outputs):
            raise ValueError(
                f"{node.name} gave {len(result.values)} values for {len(node.outputs)} outputs"
            )
        return Result(result.values, as_json(result.ui) if result.ui else None)

    def _show(self, node_id: str, result: Result) -> None:
        if result.ui is not None:
            self.shown[node_id] = result.ui
            self._tell_owner("executed", node=node_id, display_node=node_id, output=result.ui)

    def _say_blocked(self, node_id: str, blocked: Blocked) -> None:
        """A block with a message is told as an error, though the prompt goes on."""
        if blocked.message is None:
            return
        self.executor.speaker.say(
            event(
                "execution_error",
                {
                    "prompt_id": self.prompt.prompt_id,
                    "node_id": node_id,
                    "node_type": self._node(node_id).name,
                    "executed": list(self.executed),
                    "exception_message": f"Execution Blocked: {blocked.message}",
                    "exception_type": "ExecutionBlocked",
                    "traceback": [],
                    "current_inputs": [],
                    "current_outputs": [],
                },
            ),
            self.prompt.client_id,
        )

    def _record_interrupt(self, node_id: str) -> None:
        details = {
            "prompt_id": self.prompt.prompt_id,
            "node_id": node_id,
            "node_type": self._node(node_id).name,
            "executed": list(self.executed),
            "timestamp": _now(),
        }
        self.messages.append(("execution_interrupted", details))
        self.executor.speaker.say(event("execution_interrupted", details), self.prompt.client_id)

    def _error_details(
        self, node_id: str, error: BaseException, inputs: dict[str, Any]
    ) -> dict[str, Any]:
        kind = type(error)
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        memory = isinstance(error, MemoryError)
        return {
            "node_id": node_id,
            "node_type": self.graph[node_id]["class_type"] if node_id in self.graph else "",
            "executed": list(self.executed),
            "exception_message": f"{error}\n{OUT_OF_MEMORY_ADVICE if memory else ''}",
            "exception_type": OUT_OF_MEMORY_TYPE if memory else module + kind.__qualname__,
            "traceback": traceback.format_tb(error.__traceback__),
            "current_inputs": {name: [_readable(value)] for name, value in inputs.items()},
            "current_outputs": list(self.graph),
        }

    def _record(self, kind: str, **data: Any) -> None:
        """Say something to the owner, and write it into the history."""
        told = {"prompt_id": self.prompt.prompt_id, **data, "timestamp": _now()}
        self.messages.append((kind, told))
        if self.prompt.client_id is not None:
            self.executor.speaker.say(event(kind, told), self.prompt.client_id)

    def _tell_owner(self, kind: str, **data: Any) -> None:
        if self.prompt.client_id is not None:
            message = event(kind, {**data, "prompt_id": self.prompt.prompt_id})
            self.executor.speaker.say(message, self.prompt.client_id)

    def _say_state(self, state: dict[str, Any]) -> None:
        message = event("progress_state", state, Weight.PROGRESS)
        self.executor.speaker.say(message, self.prompt.client_id)

    def _node(self, node_id: str) -> Node:
        return self.registry[self.graph[node_id]["class_type"]]


def _meta(node_id: str) -> dict[str, Any]:
    return {
        "node_id": node_id,
        "display_node": node_id,
        "parent_node": None,
        "real_node_id": node_id,
    }


def _readable(value: Any) -> Any:
    """A value as an error may show it: plain ones as they are, the others in short."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__} of shape {shape}" if shape is not None else str(value)[:1000]


def _now() -> int:
    return int(time.time() * 1000)
