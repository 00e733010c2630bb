"""Replays to look at: a page that stands alone, or a moving picture."""
