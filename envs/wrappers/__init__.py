"""Wrappers of one environment."""
