"""The stages as torch modules on a GPU, as a backend: what a bare machine with PyTorch can run the whole codec on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from dlf.export.integer_prior import entropy_tables
from dlf.export.model import DLF, Config
from dlf.kernels.entropy_bin import EntropyTables
from dlf.runtime.formats import DECODER_STAGES, TILE, tiles
from dlf.runtime.gpu.device import Device
from dlf.runtime.gpu.stage_arrays import DeviceArrays
from dlf.runtime.images import Pixels
from dlf.runtime.libdlf import EntropyModel, parse_file
from dlf.runtime.steps import Steps

# Small, with every part of the model; weights are random.
CONFIG = Config(
    vit_width=128,
    vit_layers=4,
    codebook_size=256,
    codebook_dim=12,
    detail_width=64,
    detail_channels=16,
    encoder_insertions=(1,),
    decoder_insertions=(1,),
    insertion_depth=1,
    adaptor_width=64,
    vqgan_codebook_size=64,
    vqgan_codebook_dim=32,
    vqgan_width=32,
    vqgan_multipliers=(1, 1, 2, 2, 4),
)
# Of each stage, the names of its outputs.
OUTPUTS = {"analysis": ("z", "y"), "synthesis": ("semantic", "detail"), "adaptor": ("latent",), "generator": ("image",)}


def random_model(config: Config = CONFIG) -> DLF:
    """Return a model with random weights, the same on every machine with the same version of torch."""
    torch.manual_seed(0)
    return DLF(config).eval()


@dataclass(frozen=True)
class TorchStages:
    """The stages of a model, by name, on arrays on the host or on a GPU.

    Attributes:
        model: the model.
        tables, entropy: its entropy model.
        gpu: where its arrays are; None for NumPy arrays.
        cuda: whether torch is on the GPU too. If it is not, the arrays of `gpu` are copied to the host for it.
    """

    model: DLF
    tables: EntropyTables
    entropy: EntropyModel
    gpu: Device | None = None
    cuda: bool = False

    @staticmethod
    def of(model: DLF, gpu: Device | None = None, cuda: bool = False) -> "TorchStages":
        """Return a model's stages; `model` is moved to the GPU with `cuda`."""
        tables = entropy_tables(model.cpu())
        return TorchStages(model.cuda() if cuda else model, tables, EntropyModel(tables.to_bytes()), gpu, cuda)

    def __call__(self, stage: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run a stage: named arrays in, named arrays out, all float32, on `gpu` or of NumPy."""
        if self.gpu is None:
            tensors = [torch.from_numpy(values) for values in inputs.values()]
            return {name: tensor.numpy() for name, tensor in self._run(stage, tensors).items()}
        with self.gpu as gpu:
            if not self.cuda:
                tensors = [torch.from_numpy(values) for values in gpu.read(*inputs.values())]
                return {name: gpu.upload(tensor.numpy()) for name, tensor in self._run(stage, tensors).items()}
            return self._on_gpu(gpu, stage, inputs)

    def _on_gpu(self, gpu: Device, stage: str, inputs: Mapping[str, Any]) -> DeviceArrays:
        """Run on the GPU, on a copy of the outputs: torch may use the memory of its own again before dlf's stream gets there."""
        found = self._run(stage, [from_dlpack(array) for array in inputs.values()])
        outputs = {}
        for name, tensor in found.items():
            outputs[name] = gpu.empty(tuple(tensor.shape), np.float32)
            gpu.copy(outputs[name], gpu.borrow(tensor.contiguous(), np.float32))
        torch.cuda.synchronize()  # so that the tensors are read when they go
        gpu.read()
        return outputs

    @torch.inference_mode()
    def _run(self, stage: str, tensors: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        method: Callable[..., Any] = getattr(self.model, stage)
        outputs = method(*tensors)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return {name: tensor.clone() for name, tensor in zip(OUTPUTS[stage], outputs, strict=True)}


def encode(stages: TorchStages, steps: Steps, pixels: list[Pixels]) -> list[bytes]:
    """Return the files of pictures of one padded size."""
    latents = stages("analysis", {"image": steps.pad(pixels)})
    coded = steps.encode(latents["z"], latents["y"])
    return [
        stages.entropy.write_file(each.shape[1], each.shape[0], tokens, detail)
        for each, (tokens, detail) in zip(pixels, coded, strict=True)
    ]


def decode(stages: TorchStages, steps: Steps, files: list[bytes]) -> list[Pixels]:
    """Return the pictures of files of one padded size."""
    parsed = [parse_file(file) for file in files]
    down, across = tiles(parsed[0].height, parsed[0].width)
    read = [stages.entropy.read_file(file, each) for file, each in zip(files, parsed, strict=True)]
    arrays = steps.decode([tokens for tokens, _ in read], [detail for _, detail in read], down, across)
    for stage in DECODER_STAGES:
        arrays = stages(stage, arrays)
    if arrays["image"].shape != (len(files), 3, TILE * down, TILE * across):
        raise AssertionError(f"the generator gave {arrays['image'].shape}")
    return steps.crop(arrays["image"], [(each.height, each.width) for each in parsed], False)
