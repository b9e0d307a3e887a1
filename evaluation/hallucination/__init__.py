"""Checks of truthfulness, each method in its own file with the paper it follows."""
