"""Checks of golden cases: each module maps `kind` to a function of one case."""
