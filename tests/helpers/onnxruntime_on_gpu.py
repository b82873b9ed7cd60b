"""ONNX Runtime's backend for a GPU, over a simulated one: arrays in host memory, stages run by the provider for the CPU."""

import json
from pathlib import Path

import pytest
from helpers.bundle import CHANNELS, DIM
from helpers.gpu import FakeGPU, install

from dlf.kernels.entropy_bin import EntropyTables
from dlf.runtime.backends import onnxruntime_cuda
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.gpu.engines import Profile

IMAGE, SEMANTIC = ["n", 3, "256*h", "256*w"], ["n", DIM, "16*h", "16*w"]
LATENT, Z, Y = ["n", 3, "16*h", "16*w"], ["n", "h", "w", DIM, 32], ["n", CHANNELS, "8*h", "8*w"]
PORTS = {
    "analysis": ({"image": IMAGE}, {"z": Z, "y": Y}),
    "synthesis": ({"z_hat": Z, "y_hat": Y}, {"semantic": SEMANTIC, "detail": LATENT}),
    "adaptor": ({"semantic": SEMANTIC, "detail": LATENT}, {"latent": LATENT}),
    "generator": ({"latent": LATENT}, {"image": IMAGE}),
}


def describe_ports(bundle: Path) -> Path:
    """Describe the inputs and outputs of the toy bundle's stages in its manifest, as dlf-export does."""
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    for stage, ports in PORTS.items():
        for kind, shapes in zip(("inputs", "outputs"), ports, strict=True):
            manifest["stages"][stage][kind] = [{"name": name, "shape": shape} for name, shape in shapes.items()]
    path.write_text(json.dumps(manifest))
    return bundle


class OnHost(onnxruntime_cuda.ONNXRuntimeCUDABackend):
    """Its arrays are those of the simulated GPU, in host memory, and its stages are run by the provider for the CPU."""

    memory = "cpu"

    def providers(self, bundle: Bundle, stage: str, profile: Profile | None) -> onnxruntime_cuda.Providers:
        return [(onnxruntime_cuda.CPU, {})]


def install_with_providers(monkeypatch: pytest.MonkeyPatch, bundle: Path) -> FakeGPU:
    """A simulated GPU that has a bundle's entropy model, and an ONNX Runtime that seems to be for GPUs, until the test ends."""
    gpu = FakeGPU(EntropyTables.from_bytes((bundle / "entropy.bin").read_bytes()))
    install(monkeypatch, gpu)
    providers = [onnxruntime_cuda.TENSORRT, onnxruntime_cuda.CUDA, onnxruntime_cuda.CPU]
    monkeypatch.setattr(onnxruntime_cuda.onnxruntime, "get_available_providers", lambda: providers)
    return gpu
