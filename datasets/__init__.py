"""Offline data in one canonical form, and the recording of the embedded datasets."""

QUALITIES = ("good", "medium", "poor", "replay", "expert", "medium-expert", "medium-replay", "random")
