"""Data: red-team prompts, initial responses, critiques, revisions, preference pairs. CPU image."""
