"""The datasets that are recorded here on first use, and the policies that play in them."""
