"""One job on one backend, from its files to its last output. ComfyUI's words stop here.

The backend's socket tells early what happens; `/queue` and `/history` are asked whenever it is
lost, silent or done, so a lost message can neither hang a job nor falsify its end.
"""

from __future__ import annotations

from comfyserve.execution.beginning import cancel, resume, run
from comfyserve.execution.execution import Execution
from comfyserve.outputs import Sink

__all__ = ["Execution", "Sink", "cancel", "resume", "run"]
