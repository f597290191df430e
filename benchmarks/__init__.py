"""What we measure and beside what: one module per table, each starts everything it needs and compares in one run."""
