"""Read the tensors of a checkpoint file, whatever its suffix, without running anything that is in it.

torch.save's files, of both its serialisations, are pickles: only tensors, plain containers and the classes named below
are read. A .safetensors file is recognised by its content too.
"""

import logging
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dlf.runtime.errors import CheckpointError

log = logging.getLogger(__name__)

# What Lightning's hyper_parameters are often made of. Objects of these names are not made: others stand for them, so that no
# code of theirs runs, and none of their packages is needed.
HARMLESS_OBJECTS = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in ("PosixPath", "WindowsPath", "PurePosixPath")),
    *(f"omegaconf.base.{name}" for name in ("ContainerMetadata", "Metadata")),
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.nodes.AnyNode",
    "typing.Any",
    *(f"builtins.{name}" for name in ("dict", "list", "int", "float", "str", "bool")),
    *(f"numpy.{module}.multiarray.scalar" for module in ("core", "_core")),
    "numpy.dtype",
)
HARMLESS_MAPPINGS = (
    "collections.defaultdict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)

# How files begin that stand where a checkpoint should be, what they are, and the remedy.
FOREIGN = {
    b"version https://git-lfs": "is a pointer of Git LFS, not the checkpoint; run git lfs pull",
    b"<": "is a web page, not a checkpoint; download the file itself",
    b"{": "is JSON, not a checkpoint; give the file with the tensors",
    b"\x1f\x8b": "is compressed by gzip; unpack it",
    b"\xfd7zXZ": "is compressed by xz; unpack it",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd; unpack it",
}


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All named tensors of a checkpoint file, memory-mapped where the format allows, and its metadata.

    A tensor in a container of the file is named as a module's would be: `state_dict.conv.weight`.

    Raises:
        CheckpointError: it is no checkpoint, or it holds something other than tensors, plain containers and harmless objects.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path}: is no file; give the checkpoint itself" if path.exists() else f"{path}: there is no such file"
        )
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if _is_safetensors(head):
        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: a .safetensors file that cannot be read ({error}); download it again") from error
    start = head.lstrip()
    if not start:
        raise CheckpointError(f"{path}: is empty; download it again")
    for beginning, fact in FOREIGN.items():
        if start.startswith(beginning):
            raise CheckpointError(f"{path}: {fact}")
    tensors = dict(_tensors_in(_unpickle(path)))
    if not tensors:
        raise CheckpointError(f"{path}: holds no state dict; give a Lightning checkpoint, a state dict or a .safetensors file")
    return tensors, {}


def _is_safetensors(head: bytes) -> bool:
    """Whether a file begins as .safetensors do: 8 bytes with the length of a header, and the header, in JSON."""
    return head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < 1 << 32


class _Object:
    """Stands for an object: takes its arguments and its state, and keeps nothing."""

    def __init__(self, *arguments: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


class _Mapping:
    """Stands for a mapping. torch gives items to dicts of certain classes only, which those are that this class makes."""

    def __new__(cls, *arguments: object) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


def _unpickle(path: Path) -> object:
    """What torch.save has written to a file."""
    stand_ins: list[Any] = [(_Object, name) for name in HARMLESS_OBJECTS]
    stand_ins += [(_Mapping, name) for name in HARMLESS_MAPPINGS]
    zipped = zipfile.is_zipfile(path)
    with path.open("rb") as file, torch.serialization.safe_globals(stand_ins):
        misnamed = path.suffix == ".safetensors"  # torch goes by a path's suffix, and maps no memory of an open file
        try:
            content = torch.load(file if misnamed else path, map_location="cpu", weights_only=True, mmap=zipped and not misnamed)
        except Exception as error:  # torch's reader of a damaged pickle raises whatever it runs into
            raise CheckpointError(f"{path}: {_why_unread(path, str(error) or type(error).__name__)}") from error
    if zipped and (unread := _left_out(path)):
        log.warning("%s: its objects of %s are left out; the tensors alone are read", path, ", ".join(unread))
    return content


def _why_unread(path: Path, message: str) -> str:
    """A fact and a remedy in place of torch's message."""
    if named := re.search(r"GLOBAL (\S+)", message):
        return (
            f"not read, since it holds {named[1]} besides the tensors, which could run code (weights_only). If you trust the "
            "file, write its tensors alone to another, where the packages are that it was trained with: "
            f"torch.save(torch.load({str(path)!r}, weights_only=False)['state_dict'], 'tensors.pt')"
        )
    if "TorchScript" in message:
        return "is a TorchScript archive; give the state dict of its model"
    fact = "" if message.startswith("Weights only") else f" ({message.splitlines()[0]})"
    return f"neither a file of torch.save nor .safetensors, or damaged{fact}; download it again"


def _left_out(path: Path) -> list[str]:
    """The classes for which others stood in."""
    with path.open("rb") as file:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))


def _tensors_in(content: object, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of nested containers, under the names that lead to them. Those in lists, as an optimiser's, have none."""
    if isinstance(content, Tensor):
        yield prefix.removesuffix("."), content
    elif isinstance(content, Mapping):
        for name, value in content.items():
            if isinstance(name, str):
                yield from _tensors_in(value, f"{prefix}{name}.")
