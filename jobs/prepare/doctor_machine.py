"""What doctor's checks share: the machine they look at, and the line they answer with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Level = Literal["ok", "warn", "fail"]

CONTAINER_UID = 10001
"""The images' user, unless CAI_UID says otherwise."""


@dataclass(frozen=True)
class Check:
    """One line of doctor's report."""

    level: Level
    topic: str
    """One word: gpu, disk, key, endpoint, write, tmp."""
    text: str
    """What was found and, where it is not ok, what to do."""


@dataclass(frozen=True)
class Machine:
    """The machine as doctor sees it; tests give it another root and environment."""

    environment: Mapping[str, str]
    root: Path = Path("/")
    uid: int = 0

    @classmethod
    def this(cls) -> Machine:
        """The machine this process runs on."""
        return cls(environment=os.environ, uid=os.getuid())

    @property
    def in_container(self) -> bool:
        """Whether this process runs in a container (Docker, Podman or a pod)."""
        marks = (self.root / ".dockerenv", self.root / "run/.containerenv")
        return any(mark.exists() for mark in marks) or "KUBERNETES_SERVICE_HOST" in self.environment
