"""Runs of a study in several processes, on one machine or on many."""
