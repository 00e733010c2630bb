"""Choosing a policy with few episodes."""
