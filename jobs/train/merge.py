"""Put an adapter into its base for good: dequantise, add in fp32, round once.

Adding to weights of 4 bits, or to the base as it was before quantization, gives another model than the one that was
trained: the adapter learned on top of the quantization's errors.
"""

from __future__ import annotations

from typing import Any

from jobs.common.errors import DataError


def without_repacking(model: Any) -> None:
    """Have 4-bit layers answer from the weights they trained with.

    For inference on some CPUs bitsandbytes repacks them and rounds their scales, and what was rounded cannot be merged.
    """
    for module in model.modules():
        if _is_four_bit(module):
            module.support_avx512bf16_for_cpu = False


def merge_adapter(model: Any, name: str) -> Any:
    """The plain transformers model with one adapter added into its weights, in their dtype; `model` is used up.

    W' = round(float(W) + scale · B A), where W is the weight that training multiplied with.

    Args:
        model: PEFT model with the adapter `name`.
        name: PEFT's name of it.

    Raises:
        DataError: the adapter holds a layer that is not linear.
    """
    from peft.tuners.lora import LoraLayer

    base = model.get_base_model()
    for path, module in list(base.named_modules()):
        if isinstance(module, LoraLayer):
            _replace(base, path, _merged(module, name, path))
    for path, module in list(base.named_modules()):
        if _is_four_bit(module):  # a layer that got no adapter
            _replace(base, path, _linear(_weight(module), module.bias))
    _forget_quantization(base)
    return base.eval()


def _merged(layer: Any, name: str, path: str) -> Any:
    import torch

    inner = layer.get_base_layer()
    if not isinstance(inner, torch.nn.Linear):
        raise DataError(f"{path}: an adapter on {type(inner).__name__} cannot be merged; only linear layers can.")
    weight = _weight(inner)
    with torch.inference_mode(mode=False), torch.no_grad():
        down, up = layer.lora_A[name].weight.float(), layer.lora_B[name].weight.float()
        merged = (weight.float() + layer.scaling[name] * (up @ down)).to(weight.dtype)
    return _linear(merged, inner.bias)


def _weight(linear: Any) -> Any:
    """The weight a linear layer multiplies with, in the dtype of the multiplication."""
    if not _is_four_bit(linear):
        return linear.weight.detach()
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(linear.weight.data, linear.weight.quant_state).detach()


def _linear(weight: Any, bias: Any) -> Any:
    import torch

    with torch.device("meta"):
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.weight = torch.nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = torch.nn.Parameter(bias.detach(), requires_grad=False)
    return linear


def _replace(model: Any, path: str, module: Any) -> None:
    parent, _, leaf = path.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def _is_four_bit(module: Any) -> bool:
    return type(getattr(module, "weight", None)).__name__ == "Params4bit" and not hasattr(module, "lora_A")


def _forget_quantization(model: Any) -> None:
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None:
        quantizer.remove_quantization_config(model)
    model._hf_peft_config_loaded = False
