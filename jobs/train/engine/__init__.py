"""How a forward pass is made fast without changing what it computes: packing, attention, LoRA, head, compilation.

    rows -> pack() or pack_pairs() -> log_probs(model, packed) -> the trainer's loss

Every part is exact: in fp32 its values and gradients are those of the plain padded path (tests/train/engine).
"""
