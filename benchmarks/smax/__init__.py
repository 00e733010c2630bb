"""SMAX, the embedded battle simulator, behind SMAC's observations, legal actions and rewards."""
