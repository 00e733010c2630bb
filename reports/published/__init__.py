"""The numbers that the papers print, and what is known of them."""
