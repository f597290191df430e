"""For a stage's processes under the launcher: put this folder in PYTHONPATH. Python imports this module when it starts.

Accelerate divides weights on the CPU as it does on GPUs: it reads FSDP's settings only where it found GPUs; everything
after that decision is its own code. With REST_AFTER_STEP, every process waits after that step until SIGTERM has come.
"""

from __future__ import annotations

import os
import time
from typing import Any

if os.environ.get("ACCELERATE_USE_FSDP") == "true":
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType

    found = AcceleratorState.__init__

    def divide_on_cpu(self: Any, *arguments: Any, fsdp_plugin: Any = None, **given: Any) -> None:
        found(self, *arguments, fsdp_plugin=fsdp_plugin, **given)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = divide_on_cpu

if "REST_AFTER_STEP" in os.environ and "RANK" in os.environ:  # not in the launcher
    from jobs.train.watch import Watch

    written = Watch.on_log

    def rest(watch: Any, args: Any, state: Any, control: Any, **given: Any) -> None:
        written(watch, args, state, control, **given)
        while state.global_step == int(os.environ["REST_AFTER_STEP"]) and not watch.flag.asked:
            time.sleep(0.02)

    Watch.on_log = rest  # type: ignore[method-assign,assignment]
