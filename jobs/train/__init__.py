"""Training with TRL: sft, dpo and respond. The only folder that imports torch, transformers, trl, peft, bitsandbytes.

    cai sft     cai dpo     cai respond

sft.py, dpo.py and respond.py are the stages; their heavy imports happen only once a stage has work to do.
"""
