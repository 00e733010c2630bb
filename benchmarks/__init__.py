"""Tasks, simulators behind one protocol, rollouts and timing."""
