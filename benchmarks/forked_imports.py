"""What a training command imports and builds once, before processes are forked (benchmarks/forked.py)."""

from __future__ import annotations

import gc
import logging
import warnings

from jobs.train.device import go_offline

go_offline()
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import bitsandbytes  # noqa: F401
    import datasets  # noqa: F401
    import peft  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM  # noqa: F401
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping
    from trl import DPOTrainer, SFTTrainer  # noqa: F401

    import jobs.__main__
    import jobs.train.dpo
    import jobs.train.sft  # noqa: F401

get_checkpoint_conversion_mapping("llama")  # half a second of regular expressions
gc.freeze()  # a collection in a forked process would copy every page of it
