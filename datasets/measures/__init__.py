"""What a dataset asks of a method: coverage, coordination, memory, conventions, and the shape of its returns."""
