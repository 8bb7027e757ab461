"""Runs: trained, evaluated, resumed, recorded; and studies of many runs."""
