"""Lets accelerate divide weights among processes on the CPU, as it does on GPUs: put this folder in PYTHONPATH.

Python imports this module when it starts. Accelerate reads FSDP's settings only where it found GPUs; everything after
that decision is its own code.
"""

from __future__ import annotations

import os
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
