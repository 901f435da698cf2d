"""Gymnasium's CarRacing, drawn by machine code."""
