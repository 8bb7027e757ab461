"""Answers about images, from any export or run."""
