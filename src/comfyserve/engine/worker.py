"""The one thread that runs prompts."""

from __future__ import annotations

import threading

from comfyserve.engine.executor import Executor
from comfyserve.engine.messages import event
from comfyserve.engine.prompt_queue import Chore, PromptQueue


class Worker:
    """Takes prompts from the queue and runs them until the queue is closed."""

    def __init__(self, queue: PromptQueue, executor: Executor) -> None:
        self._queue = queue
        self._executor = executor
        # A daemon, so that a node that cannot be interrupted does not keep the process alive.
        self._thread = threading.Thread(target=self._work, name="engine worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, patience: float) -> None:
        """Close the queue and wait up to *patience* seconds for the running node to notice."""
        self._queue.close()
        self._thread.join(patience)

    def _work(self) -> None:
        while (task := self._queue.take()) is not None:
            if isinstance(task, Chore):
                self._executor.do(task)
                continue
            outcome = self._executor.run(task)
            self._queue.finish(task, outcome)
            if task.client_id is not None:  # last, so that who hears it finds the history written
                end = event("executing", {"node": None, "prompt_id": task.prompt_id})
                self._executor.speaker.say(end, task.client_id)
