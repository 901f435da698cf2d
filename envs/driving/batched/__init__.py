"""Driving without Box2D, a whole batch of cars in one call."""
