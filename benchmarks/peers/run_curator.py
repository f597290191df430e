"""Bespoke Curator, at its fastest: limits set so high that its own rate limiter never waits.

It needs the `cl100k_base` file of tiktoken at start; the copy that comes with its dependency litellm serves.
"""

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

spec = json.loads(sys.argv[1])
litellm = find_spec("litellm")
assert litellm is not None and litellm.origin is not None  # noqa: PT018 - one thought
os.environ |= {
    "TELEMETRY_ENABLED": "false",
    "OPENAI_API_KEY": "bench",
    "HF_HUB_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "TIKTOKEN_CACHE_DIR": str(Path(litellm.origin).parent / "litellm_core_utils" / "tokenizers"),
}

from bespokelabs import curator  # noqa: E402 - it reads the environment when it is imported

llm = curator.LLM(
    model_name="bench-model",
    backend="openai",
    generation_params={"max_tokens": 256, "temperature": 0.7},
    backend_params={
        "base_url": spec["url"],
        "max_requests_per_minute": 1_000_000,
        "max_tokens_per_minute": 1_000_000_000,
        "max_concurrent_requests": spec["lanes"],
    },
)
answered = llm(json.loads(Path(spec["texts"]).read_text(encoding="utf-8")), working_dir=spec["folder"])
print(json.dumps({"rows": len(answered.dataset)}))
