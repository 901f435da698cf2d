"""Rollouts from Ray actors."""
