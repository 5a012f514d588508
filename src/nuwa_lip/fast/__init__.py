"""Faster forms of what `models` does, put into a model from outside; the exact and simple forms stay there."""
