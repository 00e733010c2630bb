"""Figures of returns, aggregates, times and studies; their style, and the labels of scatter plots."""
