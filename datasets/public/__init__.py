"""Public datasets: sources, downloads, readers of their layouts, and conversion."""
