"""Formats that a trained network is exported to; each file writes one."""
