"""Lanes and what steps them."""
