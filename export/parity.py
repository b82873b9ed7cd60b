"""The parity gate: is a bundle of lower precision as good as the fp32 bundle that it was made from?

It looks at real photographs, stage by stage and from file to file. Every fp16 tensor is really rounded to fp16 (see
`dlf.export.emulation`); that no GPU is at hand changes speed only, not what is measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlf.runtime.images import Pixels


@dataclass(frozen=True)
class Bars:
    """What a bundle of lower precision must keep to, on every photograph."""

    decoded_psnr: float = 45.0  # dB, at least, between what both bundles decode the same file to
    tokens: float = 0.01  # share of tokens changed, at most
    bytes: float = 0.005  # relative change of a file's size, at most
    lpips: float = 0.002  # change of the distance (AlexNet) to the original, at most
    headroom: float = 2.0  # 65504 over the largest magnitude of an fp16 tensor, at least


def compare(reference: Path, candidate: Path, photographs: Sequence[Pixels]) -> dict[str, object]:
    """What `candidate` (emulated) does to photographs against the fp32 bundle `reference`, as the manifest records it."""
    ...
