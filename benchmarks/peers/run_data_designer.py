"""NVIDIA NeMo Data Designer, at its fastest: as many parallel requests as ours, no health check before the first."""

import json
import os
import sys
from pathlib import Path

spec = json.loads(sys.argv[1])
os.environ |= {"NEMO_TELEMETRY_ENABLED": "false", "HF_HUB_OFFLINE": "1"}

import data_designer.config as dd  # noqa: E402 - it reads the environment when it is imported
import pandas as pd  # noqa: E402
from data_designer.interface import DataDesigner  # noqa: E402

texts = json.loads(Path(spec["texts"]).read_text(encoding="utf-8"))
model = dd.ModelConfig(
    alias="bench",
    model="bench-model",
    provider="bench",
    skip_health_check=True,
    inference_parameters=dd.ChatCompletionInferenceParams(
        max_parallel_requests=spec["lanes"], max_tokens=256, temperature=0.7
    ),
)
builder = dd.DataDesignerConfigBuilder(model_configs=[model])
builder.with_seed_dataset(dd.DataFrameSeedSource(df=pd.DataFrame({"question": texts})))
builder.add_column(dd.LLMTextColumnConfig(name="answer", prompt="{{ question }}", model_alias="bench"))
designer = DataDesigner(
    artifact_path=spec["folder"],
    model_providers=[dd.ModelProvider(name="bench", endpoint=spec["url"], api_key="bench")],
)
created = designer.create(builder, num_records=len(texts))
print(json.dumps({"rows": len(created.load_dataset())}))
