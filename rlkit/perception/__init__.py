"""Supervised models: tables of labelled rows, tasks that learn from them, and what agents take over."""
