"""Keys of TRL, transformers and the alignment-handbook, and what says the same thing in a recipe.

An unknown key of a recipe is looked up here, `cai recipe import` translates by it, and recipes/README.md prints it.
"""

from __future__ import annotations

from typing import Any

_MEANINGS: dict[str, str] = {
    "student.model": "model_name_or_path",
    "student.revision": "model_revision",
    "student.chat_template": "chat_template chat_template_path",
    "precision": "bf16 dtype fp16 torch_dtype",
    "quantization: nf4": "load_in_4bit load_in_8bit",
    "sft.lora.rank": "lora_r",
    "sft.lora.alpha": "lora_alpha",
    "sft.lora.dropout": "lora_dropout",
    "sft.lora.target_modules": "lora_target_modules",
    "sft.mix_in and dpo.mix_in": "dataset_mixer dataset_mixture dataset_name datasets",
    "sft.mix_in.split": "dataset_splits dataset_train_split",
    "batch_size (rows behind one optimizer step)": "gradient_accumulation_steps per_device_train_batch_size",
    "micro_batch_tokens": "auto_find_batch_size per_device_eval_batch_size",
    "gradient_checkpointing": "activation_checkpointing",
    "max_length": "max_seq_length",
    "dpo.max_length (prompt and answer together)": "max_prompt_length",
    "epochs": "num_train_epochs",
    "warmup_fraction": "warmup_ratio warmup_steps",
    "dpo.loss_type: [sigmoid, sft] with dpo.loss_weights": "rpo_alpha",
    "evaluations (how many, not how far apart)": (
        "eval_delay eval_on_start eval_steps eval_strategy evaluation_strategy"
    ),
    "save_minutes": "save_steps save_strategy",
    "tracker": "report_to",
    "--run and --runs": "output_dir run_name",
    "--redo": "overwrite_output_dir",
    "nothing (held-out rows are always evaluated, and nothing else)": (
        "do_eval do_predict dataset_test_split batch_eval_metrics eval_accumulation_steps eval_do_concat_batches "
        "eval_use_gather_object include_for_metrics label_names prediction_loss_only test_split_size"
    ),
    "nothing (`cai sft` and `cai dpo` train)": "do_train",
    "nothing (an adapter is always trained)": "use_peft",
    "nothing (trainers have no network; `cai publish model` pushes)": (
        "hub_always_push hub_model_id hub_model_revision hub_private_repo hub_revision hub_strategy hub_token "
        "project push_to_hub push_to_hub_revision trackio_bucket_id trackio_space_id trackio_static_space_id "
        "wandb_entity wandb_project"
    ),
    "nothing (resumes from the newest checkpoint that is whole, bit for bit)": (
        "enable_jit_checkpoint ignore_data_skip load_best_model_at_end greater_is_better metric_for_best_model "
        "restore_callback_states_from_checkpoint resume_from_checkpoint save_on_each_node save_only_model "
        "save_total_limit"
    ),
    "nothing (every step is logged)": (
        "disable_tqdm include_num_input_tokens_seen include_tokens_per_second log_level log_level_replica "
        "log_on_each_node logging_dir logging_first_step logging_nan_inf_filter logging_steps logging_strategy "
        "skip_memory_metrics"
    ),
    "nothing (chosen by device)": (
        "attn_implementation gradient_checkpointing_kwargs activation_checkpointing_kwargs activation_offloading "
        "average_tokens_across_devices bf16_full_eval fp16_full_eval liger_kernel_config model_init_kwargs tf32 "
        "torch_compile torch_compile_backend torch_compile_mode torch_empty_cache_steps use_cache use_cpu "
        "use_flash_attention_2 use_liger use_liger_kernel"
    ),
    "nothing (accelerate's own file; see recipes/accelerate)": (
        "accelerator_config ddp_backend ddp_broadcast_buffers ddp_bucket_cap_mb ddp_find_unused_parameters "
        "ddp_static_graph ddp_timeout deepspeed fsdp fsdp_config local_rank parallelism_config"
    ),
    "nothing (nf4 with double quantization)": (
        "bnb_4bit_quant_storage bnb_4bit_quant_type use_bnb_nested_quant"
    ),
    "nothing (rows are packed without padding, each attending to itself alone)": (
        "eval_packing group_by_length length_column_name packing packing_strategy pad_to_multiple_of padding_free "
        "train_sampling_strategy"
    ),
    "nothing (reference log-probabilities are always computed once and kept)": (
        "precompute_ref_batch_size precompute_ref_log_probs model_adapter_name ref_adapter_name force_use_ref_model"
    ),
    "nothing (rows are read and shuffled with the seed)": (
        "data_seed dataloader_drop_last dataloader_in_order dataloader_multiprocessing_context dataloader_num_workers "
        "dataloader_persistent_workers dataloader_pin_memory dataloader_prefetch_factor dataset_kwargs "
        "dataset_num_proc dataset_streaming preprocessing_num_workers remove_unused_columns shuffle_dataset streaming "
        "text_column dataset_text_field"
    ),
    "nothing (the student's own tokenizer; its end of turn is trained, its padding never is)": (
        "auto_insert_empty_system_msg eos_token pad_token tokenizer_name_or_path"
    ),
    "nothing (code of a repository is never run)": "trust_remote_code",
    "nothing (a run is deterministic)": "full_determinism debug",
    "nothing (LoRA for causal language models)": "lora_task_type model_code_revision",
    "nothing (AdamW, no weight decay)": (
        "adam_beta1 adam_beta2 adam_epsilon optim optim_args optim_target_modules weight_decay"
    ),
    "nothing (cosine decay)": "lr_scheduler_kwargs lr_scheduler_type",
    "nothing (gradients are clipped at 1)": "max_grad_norm",
    "nothing (every answer is trained, and nothing else is)": "assistant_only_loss completion_only_loss",
    "nothing (a row that is too long loses its end)": "truncation_mode",
    "nothing (not offered)": (
        "dataset_config dataset_configs discopop_tau disable_dropout f_alpha_divergence_coef f_divergence_type "
        "ignore_bias_buffers label_smoothing_factor ld_alpha lora_modules_to_save lora_target_parameters "
        "neftune_noise_alpha ref_model_mixup_alpha ref_model_sync_steps router_aux_loss_coef sync_ref_model use_dora "
        "use_rslora use_weighting"
    ),
}  # fmt: skip

OLD_NAMES: dict[str, str] = {name: new for new, names in _MEANINGS.items() for name in names.split()}
"""What to write instead, by old key; `nothing (why)` where there is nothing to write."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "adam_beta1": (0.9,), "adam_beta2": (0.999,), "adam_epsilon": (1e-8,),
    "assistant_only_loss": (True,), "completion_only_loss": (True,),
    "dataset_config": ("default",), "dataset_configs": (["default"],),
    "disable_dropout": (True,), "discopop_tau": (0.05,), "f_divergence_type": ("reverse_kl",),
    "ignore_bias_buffers": (False,), "label_smoothing_factor": (0,), "lr_scheduler_type": ("cosine",),
    "max_grad_norm": (1,), "router_aux_loss_coef": (0.001, 0), "sync_ref_model": (False,),
    "truncation_mode": ("keep_start",), "use_dora": (False,), "use_rslora": (False,), "use_weighting": (False,),
    "weight_decay": (0,), "optim": (
        "adamw_torch", "adamw_torch_fused", "adamw_hf", "paged_adamw_32bit", "paged_adamw", "adamw_bnb_8bit",
        "paged_adamw_8bit", "adamw_8bit", "adamw_apex_fused",
    ),
    "lr_scheduler_kwargs": ({},), "lora_modules_to_save": ([],), "lora_target_parameters": ([],),
    "ld_alpha": (1,), "neftune_noise_alpha": (0,), "optim_args": ("",), "optim_target_modules": ([],),
}  # fmt: skip
"""Old keys without a successor that change what is learned, and the values under which they do not; null never does."""
