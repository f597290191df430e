"""`cai audit`: reads a dataset, measures it (`jobs/measure`), writes one HTML page and stops a run whose gates fail."""
