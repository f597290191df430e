"""Measures of data quality, shared by generate, audit and evaluate: functions of texts; no endpoint, no torch."""
