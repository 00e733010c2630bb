"""The form of a run on disk: what it must hold, its checksums, and how it is read."""
