"""Training with TRL and what follows it. The only folder that imports torch, transformers, trl, peft, bitsandbytes.

    cai sft     cai dpo     cai respond     cai export     cai chat

sft.py, dpo.py, respond.py and export.py are the stages; their heavy imports happen only once a stage has work to do.
"""
