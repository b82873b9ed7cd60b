"""Checks of a bare machine with an NVIDIA GPU, without a network: `python -m dlf.benchmarks.gpu_check`.

Each step runs in a process of its own with a time limit, so that one that hangs or crashes costs only its own result:

    machine      the driver, the libraries' versions, and whether every shipped kernel for this GPU loads
    kernels      every kernel against its NumPy reference, bit by bit
    graphs       work that is recorded as a CUDA graph, replayed, and recorded again
    sharing      arrays handed to and taken from torch, in this thread and others, on other streams
    codec        the whole codec, with the stages as torch modules on the GPU: the CPU decodes its files, and it the CPU's
    sanitizer    the kernels again, small, under NVIDIA's compute-sanitizer, where that is installed
    pytest       `pytest -m gpu`, where the tests and what they need are there
    engines      `dlf doctor` and the time of a picture, on each backend for the GPU that is installed
    speed        the stages in the released layout with random weights in torch, at 768x512, beside the least time of the roofline

A table tells the results at the end, and a JSON file, written after each step, has the details.
"""
