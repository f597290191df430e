"""The packed forward pass over weights that are divided among processes (FSDP2), as recipes/accelerate/fsdp.yaml asks.

Accelerate divides nothing on a CPU, so the division is done here with the call it makes on GPUs.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.train.adapters import whole_values

ROOT = Path(__file__).resolve().parents[2]
ROWS = [list(range(5, 25)), list(range(30, 41)), list(range(3, 18)), list(range(7, 29))]


def run_rank(dtype: str) -> None:
    """One of two processes: gradients of its half of the rows, averaged by FSDP, gathered whole and printed."""
    import torch.distributed
    from torch.distributed.fsdp import fully_shard

    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    model = tiny_model(getattr(torch, dtype), sharded=True)
    for layer in model.get_base_model().model.layers:
        fully_shard(layer)
    fully_shard(model)
    loss_of(model, ROWS[rank::2], processes=2).backward()
    grads = {
        name.replace("base_model.", ""): parameter.grad.full_tensor().double().norm().item()
        for name, parameter in sorted(model.named_parameters())
        if parameter.requires_grad
    }
    values = {name: value.double().norm().item() for name, value in whole_values(model).items()}
    if rank == 0:
        print(json.dumps(grads), json.dumps(values), sep="\n", flush=True)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    os._exit(0)  # gloo's threads may outlive the group and abort the interpreter at its end


def tiny_model(dtype: torch.dtype, sharded: bool) -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    from jobs.train.engine.attention import choose_attention
    from jobs.train.engine.prepare import prepare_model

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_implementation=choose_attention("cpu"),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an old name
        model = get_peft_model(LlamaForCausalLM(config).to(dtype), LoraConfig(r=4, target_modules="all-linear"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    prepare_model(model, compiled=False, sharded=sharded)
    return model


def loss_of(model: Any, rows: list[list[int]], processes: int) -> Any:
    from jobs.train.engine.forward import log_probs
    from jobs.train.engine.pack import Row, pack

    total = sum(len(ids) - 1 for ids in ROWS)
    packed = pack([Row(ids, [range(1, len(ids))]) for ids in rows], "cpu")
    return -log_probs(model, packed).sum() / total * processes  # FSDP averages


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 5e-2)])
def test_fp32_adapters_over_divided_weights_get_the_gradients_of_one_process(dtype: str, tolerance: float) -> None:
    whole = tiny_model(getattr(torch, dtype), sharded=False)
    loss_of(whole, ROWS, processes=1).backward()
    expected = {
        name.replace("base_model.", ""): parameter.grad.double().norm().item()
        for name, parameter in sorted(whole.named_parameters())
        if parameter.requires_grad and parameter.grad is not None
    }

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    command = [sys.executable, "-c", f"from tests.train.test_sharded import run_rank; run_rank('{dtype}')"]
    ranks = [
        subprocess.Popen(
            command, cwd=ROOT, env=os.environ | meet | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]
    said = [rank.communicate(timeout=120)[0] for rank in ranks]

    assert [rank.returncode for rank in ranks] == [0, 0]
    found, saved = map(json.loads, said[0].splitlines()[-2:])
    before = {name: value.double().norm().item() for name, value in whole_values(whole).items()}
    assert saved == pytest.approx(before, rel=1e-6), "what would be saved is whole"
    assert found.keys() == expected.keys()
    assert len(found) == 28
    assert found == pytest.approx(expected, rel=tolerance)
