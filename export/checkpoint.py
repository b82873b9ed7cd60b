"""Load the authors' checkpoints unchanged: Lightning `.ckpt`, plain state dicts, `.safetensors`.

The configuration is read off the tensors' shapes. What training left in a checkpoint is ignored by name; any other
tensor that is missing, unexpected or misshapen is refused, with the list.
"""

import math
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dlf.export.model import DLF, Config
from dlf.export.model.swin import boundary_masks
from dlf.runtime.errors import CheckpointError

# Tensors of training and of the VQGAN's encoding half.
IGNORED = ("img_loss.", "feat_loss.", "epoch_for_strategy", "lmbda_idx", "lmbda_list", "vqgan.encoder.", "vqgan.quant_conv.")
# The number of GroupNorm groups leaves no trace in a shape. Ours is written into the metadata of a .safetensors file;
# without it the released model's number holds.
GROUPS_KEY = "dlf.vqgan_groups"


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a checkpoint file, memory-mapped where the format allows, and its metadata.

    Raises:
        CheckpointError: it is no checkpoint, or it holds something other than tensors and plain containers.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: not a readable .safetensors file ({error})") from error
    _refuse_foreign(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: not a checkpoint that can be read safely (weights_only): {reason}") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path}: holds no state dict; give a Lightning checkpoint, a state dict or a .safetensors file")
    return dict(content), {}


def _refuse_foreign(path: Path) -> None:
    """Tell of files that stand where a checkpoint should be."""
    with path.open("rb") as file:
        head = file.read(64).lstrip()
    if not head:
        raise CheckpointError(f"{path}: is empty; download it again")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path}: is a pointer of Git LFS, not the checkpoint; run git lfs pull")
    if head.startswith(b"<"):
        raise CheckpointError(f"{path}: is a web page, not a checkpoint; download the file itself")


def _indices(names: Iterable[str], prefix: str) -> tuple[int, ...]:
    """The numbers that follow a prefix, sorted."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return tuple(sorted({int(match[1]) for name in names if (match := pattern.match(name))}))


def infer_config(tensors: Mapping[str, Tensor], groups: int = 32) -> Config:
    """The configuration that the shapes of a checkpoint's tensors imply.

    Raises:
        KeyError, ValueError: a tensor that tells a size is missing, or the sizes fit no model.
    """

    def shape(name: str) -> torch.Size:
        return tensors[name].shape

    encoder, decoder = "hybrid_codec.encoder", "hybrid_codec.decoder"
    insertions = _indices(tensors, f"{encoder}.inter_blocks")
    levels = _indices(tensors, "vqgan.decoder.up")
    vqgan_widths = [shape(f"vqgan.decoder.up.{i}.block.0.conv1.weight")[0] for i in levels]
    vqgan_width = math.gcd(*vqgan_widths)
    return Config(
        vit_width=shape("hybrid_codec.latent_tokens")[1],
        vit_layers=len(_indices(tensors, f"{encoder}.transformer")),
        codebook_size=shape("hybrid_codec.quantize.embedding.weight")[0],
        codebook_dim=shape("hybrid_codec.quantize.embedding.weight")[1],
        detail_width=shape("hybrid_codec.quantize_feat.enc_q")[1],
        detail_channels=shape("hybrid_codec.quantize_feat.factorized_prior_vec")[1],
        encoder_insertions=insertions,
        decoder_insertions=_indices(tensors, f"{decoder}.inter_blocks"),
        insertion_depth=len(_indices(tensors, f"{encoder}.inter_blocks.{insertions[0]}.attn")) if insertions else 0,
        adaptor_width=shape("prior_fusion.merge.3.weight")[0],
        vqgan_codebook_size=shape("vqgan.quantize.embedding.weight")[0],
        vqgan_codebook_dim=shape("vqgan.quantize.embedding.weight")[1],
        vqgan_width=vqgan_width,
        vqgan_multipliers=tuple(width // vqgan_width for width in vqgan_widths),
        vqgan_blocks=len(_indices(tensors, "vqgan.decoder.up.0.block")) - 1,
        vqgan_groups=groups,
    )


def _check_masks(path: Path, tensors: dict[str, Tensor]) -> None:
    """Take the stored Swin masks out; the model makes its own, so they must be the same."""
    ours = dict(zip(("upper_lower_mask", "left_right_mask"), boundary_masks(), strict=True))
    for name in [name for name in tensors if name.endswith("_mask")]:
        mask = ours.get(name.rsplit(".", 1)[-1])
        if mask is None or not torch.equal(tensors.pop(name) == -torch.inf, mask):
            raise CheckpointError(f"{path}: {name} is not the mask of a shifted 16x16 window")


def _listed(title: str, names: list[str], most: int = 12) -> str:
    rest = f", and {len(names) - most} more" if len(names) > most else ""
    return f"\n  {len(names)} {title}: {', '.join(names[:most])}{rest}" if names else ""


def load_checkpoint(path: Path) -> DLF:
    """Load a checkpoint into a model in evaluation mode.

    Raises:
        CheckpointError: not a checkpoint, or not of DLF: the message lists missing, unexpected and misshapen tensors.
    """
    tensors, metadata = read_tensors(path)
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(IGNORED)}
    _check_masks(path, tensors)
    try:
        config = infer_config(tensors, int(metadata.get(GROUPS_KEY, 32)))
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"{path}: not a DLF checkpoint; cannot tell its configuration ({error})") from error
    with torch.device("meta"):
        expected = DLF(config).state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - expected.keys())
    misshapen = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & tensors.keys())
        if tensors[name].shape != expected[name].shape
    ]
    if missing or unexpected or misshapen:
        lists = _listed("missing", missing) + _listed("unexpected", unexpected) + _listed("misshapen", misshapen)
        raise CheckpointError(f"{path}: not a DLF checkpoint of a known layout:{lists}")
    with torch.device("meta"):
        model = DLF(config)
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    return model.eval().requires_grad_(False)
