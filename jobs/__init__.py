"""Constitutional AI as batch jobs: a constitution goes in, an aligned model with its evidence comes out.

The map, in the order a run goes:

    prepare/   doctor, fetch, importers, training plan    CPU image
    generate/  prompts, critiques, revisions, preference pairs    CPU image, the only import of openai
    audit/     data report: gates, one HTML page    CPU image
    train/     sft, dpo, respond, verify, export, chat    CUDA image, the only import of torch, transformers, trl, peft
    publish/   dataset and model cards, Hub upload, tracker logs    CPU image
    measure/   measures of texts, for generate, audit and evaluate    CPU image
    common/    errors, recipe, constitution, records, files, stages    both images

The import rule: `__main__` imports a job when its command runs, a job imports `measure` and `common`, and jobs never
import each other: they meet in files below `runs/<run>/`. `tests/test_boundaries.py` breaks on any other import.
"""
