"""What decisions, updates and simulators cost on this machine."""
