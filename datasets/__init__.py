"""Offline data in one canonical form, and the recording of the embedded datasets."""
