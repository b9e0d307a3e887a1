"""Runs inside the labelling server's own environment, as `python -m embedded`; veritune itself never imports it."""
