"""The papers' other experiments."""
