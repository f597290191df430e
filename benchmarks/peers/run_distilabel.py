"""Argilla's distilabel. A batch is a barrier and is kept only when it is whole; `batch` says how many rows it has."""

import json
import os
import sys
import warnings
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1"}
warnings.filterwarnings("ignore")

from distilabel.models import OpenAILLM  # noqa: E402
from distilabel.pipeline import Pipeline  # noqa: E402
from distilabel.steps import LoadDataFromDicts  # noqa: E402
from distilabel.steps.tasks import TextGeneration  # noqa: E402


def main() -> None:
    """Run one pipeline; under a guard, because its steps are processes."""
    spec = json.loads(sys.argv[1])
    texts = json.loads(Path(spec["texts"]).read_text(encoding="utf-8"))
    with Pipeline(name="bench", cache_dir=spec["folder"]) as pipeline:
        load = LoadDataFromDicts(data=[{"instruction": text} for text in texts], batch_size=spec["batch"])
        llm = OpenAILLM(
            model="bench-model",
            base_url=spec["url"],
            api_key="bench",
            generation_kwargs={"max_new_tokens": 256, "temperature": 0.7},
        )
        load >> TextGeneration(llm=llm, input_batch_size=spec["batch"])
    rows = pipeline.run(use_cache=False)["default"]["train"]
    print(json.dumps({"rows": sum(row["generation"] is not None for row in rows)}))


if __name__ == "__main__":
    main()
