"""Run the jobs of a grid: in this process, or side by side under Ray."""
