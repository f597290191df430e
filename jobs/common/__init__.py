"""What every job shares: errors, settings, records and files. Never torch, openai or datasets."""
