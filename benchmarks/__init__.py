"""Measurements of rate, quality and speed, each compared with a peer."""
