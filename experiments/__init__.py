"""The grid: command line, training loop, launchers and the results store."""
