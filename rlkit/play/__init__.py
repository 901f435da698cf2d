"""Playing: evaluation, videos, policies outside training, statistics."""
