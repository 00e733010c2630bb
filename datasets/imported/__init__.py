"""Data of the user's own: files and episodes brought beside a task's other datasets."""
