"""Perceptual distances and the networks that they take, for training, the parity gate and the benchmarks."""
