"""Run the jobs of a grid: in this process, or several at once by Ray."""
