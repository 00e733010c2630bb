"""From a suite, a profile and the command line to jobs."""
