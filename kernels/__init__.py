"""Triton kernels of the entropy core, each with its NumPy reference."""
