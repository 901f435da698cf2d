"""The kinds of faults that `scripts/faults.py` tries, one per file."""
