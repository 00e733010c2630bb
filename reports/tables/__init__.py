"""The long table of a suite, its statistics, and its formats."""
