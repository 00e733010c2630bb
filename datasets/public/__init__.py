"""The datasets that others have published: where they are, how they are read and converted."""
