"""One task per file: what is predicted, its loss, its score."""
