"""Measurements: rate, quality and speed, always beside a peer."""
