"""Before a run: doctor, fetch, importer. CPU image."""
