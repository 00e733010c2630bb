"""From a suite, a profile and the command line to jobs, and the estimate of their time."""
