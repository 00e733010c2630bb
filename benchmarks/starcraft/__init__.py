"""Real StarCraft II through the packages smac, smacv2 and og-marl, where they are installed."""
