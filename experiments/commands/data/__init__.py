"""`offmarl data` and its actions."""
