"""The results store: one directory a run."""
