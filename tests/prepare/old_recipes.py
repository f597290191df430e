"""Training files of other projects: keys and values as they publish them, for SFT and DPO."""

from __future__ import annotations


def filled(text: str, **values: object) -> str:
    """The text with every `<name>` replaced."""
    for name, value in values.items():
        text = text.replace(f"<{name}>", str(value))
    return text


ZEPHYR = (
    "{% for message in messages %}\\n{% if message['role'] == 'user' %}\\n{{ '<|user|>\\n' + message['content'] + "
    "eos_token }}\\n{% elif message['role'] == 'assistant' %}\\n{{ '<|assistant|>\\n' + message['content'] + "
    "eos_token }}\\n{% endif %}\\n{% if loop.last and add_generation_prompt %}\\n{{ '<|assistant|>' }}\\n{% endif %}\\n"
    "{% endfor %}"
)
LORA = """\
use_peft: true
load_in_4bit: true
lora_r: <rank>
lora_alpha: <rank>
lora_dropout: 0.05
lora_target_modules: [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]
"""
HUB = """\
push_to_hub: true
hub_model_id: made-up
save_strategy: "steps"
save_steps: 100
save_total_limit: 1
seed: 42
log_level: info
output_dir: data/made-up
per_device_eval_batch_size: 8
"""
SFT = (
    """\
model_name_or_path: <model>
model_revision: main
torch_dtype: bfloat16
attn_implementation: flash_attention_2
"""
    + LORA.replace("<rank>", "16")
    + f'chat_template: "{ZEPHYR}"'
    + """
dataset_mixer:
  HuggingFaceH4/cai-conversation-harmless: 0.05
  HuggingFaceH4/ultrachat_200k: 0.05
dataset_splits: [train_sft, test_sft]
preprocessing_num_workers: 40
bf16: true
do_eval: true
do_train: true
eval_strategy: epoch
gradient_accumulation_steps: 8
gradient_checkpointing: true
gradient_checkpointing_kwargs: {use_reentrant: False}
hub_strategy: every_save
learning_rate: <rate>
logging_steps: 5
logging_strategy: steps
lr_scheduler_type: cosine
max_seq_length: 2048
max_steps: -1
num_train_epochs: 1
overwrite_output_dir: true
per_device_train_batch_size: 8
remove_unused_columns: true
report_to: [tensorboard]
warmup_ratio: 0.1
"""
    + HUB
)
DPO = (
    """\
model_name_or_path: <model>
torch_dtype: bfloat16
"""
    + LORA
    + """\
dataset_mixer:
  HuggingFaceH4/ultrafeedback_binarized: 0.05
  HuggingFaceH4/cai-conversation-harmless: 0.05
dataset_splits: [train_prefs, test_prefs]
preprocessing_num_workers: 40
bf16: true
beta: 0.01
do_eval: true
eval_strategy: steps
eval_steps: 100
gradient_accumulation_steps: 4
gradient_checkpointing: true
hub_private_repo: true
learning_rate: <rate>
logging_steps: 100
lr_scheduler_type: <scheduler>
max_length: 1024
max_prompt_length: 512
num_train_epochs: 1
optim: <optim>
per_device_train_batch_size: 4
warmup_ratio: 0.1
"""
    + HUB
)

SMOL_SFT = filled(SFT, model="HuggingFaceTB/SmolLM2-1.7B-Instruct", rate="1.0e-03") + (
    "tokenizer_name_or_path: HuggingFaceTB/SmolLM2-1.7B-Instruct\n"
)
MISTRAL_SFT = filled(SFT, model="mistralai/Mistral-7B-v0.1", rate="2.0e-05")
SMOL_DPO = filled(
    DPO, model="moodlep/smollm2-1.7b-instr-sft-cai", rank=16, rate="1e-6", scheduler="cosine", optim="paged_adamw_32bit"
)
MISTRAL_DPO = filled(
    DPO, model="moodlep/mistral-7b-sft-constitutional-ai", rank=128, rate="5.0e-7", scheduler="linear", optim="rmsprop"
)
ZEPHYR_SFT = (
    """\
model_name_or_path: mistralai/Mistral-7B-v0.1
model_revision: main
torch_dtype: bfloat16
"""
    + LORA.replace("<rank>", "16")
    + f'chat_template: "{ZEPHYR}"'
    + """
dataset_mixer:
  HuggingFaceH4/ultrachat_200k: 1.0
dataset_splits: [train_sft, test_sft]
bf16: true
evaluation_strategy: epoch
gradient_accumulation_steps: 2
learning_rate: 2.0e-04
max_seq_length: 2048
num_train_epochs: 1
per_device_train_batch_size: 4
warmup_ratio: 0.1
"""
)
ZEPHYR_DPO = (
    """\
model_name_or_path: alignment-handbook/zephyr-7b-sft-qlora
torch_dtype: float16
"""
    + LORA.replace("<rank>", "16")
    + """\
dataset_mixer:
  HuggingFaceH4/ultrafeedback_binarized: 1.0
dataset_splits: [train_prefs, test_prefs]
bf16: true
beta: 0.01
evaluation_strategy: steps
eval_steps: 100
gradient_accumulation_steps: 1
learning_rate: 5.0e-6
max_length: 1024
max_prompt_length: 512
optim: paged_adamw_32bit
per_device_train_batch_size: 4
warmup_ratio: 0.1
"""
)
TRL_DPO = """\
model_name_or_path: Qwen/Qwen2.5-0.5B-Instruct
dtype: bfloat16
dataset_name: trl-lib/ultrafeedback_binarized
loss_type: [sigmoid, sft]
loss_weights: [1.0, 0.2]
beta: 0.1
per_device_train_batch_size: 2
gradient_accumulation_steps: 16
warmup_steps: 0.03
weight_decay: 0.01
report_to: wandb
eval_strategy: "no"
"""
HANDBOOK_MIXTURE = """\
model_name_or_path: mistralai/Mistral-7B-Instruct-v0.3
dataset_mixture:
  datasets:
    - {id: HuggingFaceH4/cai-conversation-harmless, config: default, split: train_sft, columns: [messages], weight: 1.0}
    - {id: HuggingFaceH4/ultrachat_200k, config: default, split: test_sft, columns: [messages], weight: 1.0}
    - {id: HuggingFaceTB/smoltalk2, config: SFT, split: table_gpt_no_think, columns: [messages], weight: 0.5}
  test_split_size: 1000
  seed: 0
dataset_num_proc: 12
max_length: 2048
packing: true
max_grad_norm: 0.2
"""
EVERY = {
    "smol_sft": SMOL_SFT,
    "mistral_sft": MISTRAL_SFT,
    "smol_dpo": SMOL_DPO,
    "mistral_dpo": MISTRAL_DPO,
    "zephyr_sft": ZEPHYR_SFT,
    "zephyr_dpo": ZEPHYR_DPO,
    "trl_dpo": TRL_DPO,
    "handbook_mixture": HANDBOOK_MIXTURE,
}
