"""Experience that is learned from many times."""
