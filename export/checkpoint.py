"""Load the authors' checkpoints unchanged: Lightning `.ckpt`, plain state dicts, `.safetensors`.

The configuration is read off the tensors' shapes. Prefixes of names, as wrappers and averages leave them, are stripped, which
the log says. What training left in a checkpoint is ignored by name; any other tensor that is missing, unexpected or misshapen
is refused, with the list.
"""

import logging
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from dlf.export.checkpoint_file import read_tensors
from dlf.export.model import DLF, Config
from dlf.export.model.swin import boundary_masks
from dlf.runtime.errors import CheckpointError

log = logging.getLogger(__name__)

# What torch.compile and DistributedDataParallel put into the names of what they wrap, wherever in the model that is.
WRAPPERS = ("_orig_mod", "module")
KNOWN_TENSOR = "hybrid_codec.latent_tokens"  # every DLF has it; what stands before its name is a prefix
# Tensors of training and of the VQGAN's encoding half.
IGNORED = ("img_loss.", "feat_loss.", "epoch_for_strategy", "lmbda_idx", "lmbda_list", "vqgan.encoder.", "vqgan.quant_conv.")
# The number of GroupNorm groups leaves no trace in a shape. Ours is written into the metadata of a .safetensors file;
# without it the released model's number holds.
GROUPS_KEY = "dlf.vqgan_groups"


def _model_in(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the one model in a file, by the layout's names: without what wrappers and containers put before them."""
    parts = {name: [part for part in name.split(".") if part not in WRAPPERS] for name in tensors}
    bare = {".".join(parts[name]): tensor for name, tensor in tensors.items()}
    if len(bare) < len(tensors):
        raise CheckpointError(f"{path}: holds tensors twice, with and without the prefixes {' and '.join(WRAPPERS)}")
    found = [name.removesuffix(KNOWN_TENSOR) for name in bare if f".{name}".endswith(f".{KNOWN_TENSOR}")]
    if not found:
        return bare
    averaged = [prefix for prefix in found if "ema" in prefix.lower()]
    if len(found) > 1 and len(averaged) != 1:
        raise CheckpointError(f"{path}: holds {len(found)} models, named {', '.join(found)}...; keep one of them")
    (prefix,) = averaged if len(found) > 1 else found
    if len(found) > 1:
        log.warning("%s: of its %d models the averaged one is taken, with the prefix %s", path, len(found), prefix)
    elif stripped := prefix.removeprefix("state_dict."):
        log.warning("%s: the prefix %s is stripped from its tensors' names", path, stripped)
    if wrappers := sorted({part for name in tensors for part in name.split(".") if part in WRAPPERS}):
        log.warning("%s: the prefix %s is stripped from its tensors' names", path, ". and ".join(wrappers) + ".")
    return {name.removeprefix(prefix): tensor for name, tensor in bare.items() if name.startswith(prefix)}


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
    tensors = {name: tensor for name, tensor in _model_in(path, tensors).items() if not name.startswith(IGNORED)}
    _check_masks(path, tensors)
    try:
        config = infer_config(tensors, int(metadata.get(GROUPS_KEY, 32)))
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        told = GROUPS_KEY in metadata
        groups = "" if told else f"; a .safetensors file tells another number of groups in its metadata, as {GROUPS_KEY}"
        raise CheckpointError(f"{path}: not a DLF checkpoint; cannot tell its configuration ({error}{groups})") from error
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
