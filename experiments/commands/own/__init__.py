"""Commands for methods and tasks of your own."""
