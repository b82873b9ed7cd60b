"""What runs on an NVIDIA GPU: the device, its arrays, the kernels compiled ahead of time, and the cache of engines."""
