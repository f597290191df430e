"""One driver per peer, run by the Python of the peer's own venv: JSON in as argument, JSON out on the last line."""
