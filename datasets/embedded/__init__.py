"""Embedded datasets, which are recorded on first use, and their behaviour policies."""
