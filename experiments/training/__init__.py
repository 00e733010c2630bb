"""The one training loop, and what it trains with."""
