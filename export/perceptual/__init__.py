"""Perceptual distances and the networks that they use, for training, the parity gate and the benchmarks."""
