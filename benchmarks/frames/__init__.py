"""What an environment looks like, in numbers: adapters that can be watched, and films of their episodes."""
