"""The self-test: compares the entropy core with its scalar code, each stage of a bundle with its stored reference outputs, and
the steps that a backend computes on its own device with those on the CPU.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dlf.runtime import stages
from dlf.runtime.backends import Backend
from dlf.runtime.bundles import references
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.bundles.references import References
from dlf.runtime.errors import DLFError
from dlf.runtime.formats import STAGES, TOKENS_PER_TILE
from dlf.runtime.libdlf import EntropyModel, parse_file
from dlf.runtime.steps import HasSteps, HostSteps, Steps

# The largest relative error of a stage's outputs (`References.errors`), by the precision it computes in. The references
# are those of the fp32 stages, also in a bundle of lower precision. (With the first built-in model OpenVINO's fp32 was off by
# 5e-6, fp16 by 7e-4 and int8 by 2e-2.)
TOLERANCE = {"fp32": 1e-3, "tf32": 1e-2, "fp16": 1e-2, "int8": 1e-1}
# How far a backend's own steps may differ from those on the CPU: the share of tokens (two codebook entries may be nearly equally
# near), the relative error of the detail latent (a value may be halfway between two symbols), and levels of a pixel.
TOKENS_CHANGED, LATENT_ERROR, LEVELS = 0.01, 0.05, 1


@dataclass(frozen=True)
class Check:
    """One part of the self-test.

    Attributes:
        name: what was tested.
        passed: whether the result is correct.
        fact: the result, such as the relative error of a stage's outputs.
    """

    name: str
    passed: bool
    fact: str


class _FailedError(Exception):
    """A check failed; the message says how."""


def run(bundle: Bundle, backend: Backend | None) -> list[Check]:
    """Test that coding is exact, and that every stage gives its reference outputs on the backend, if there is one.

    The check of a stage without reference outputs fails, because the stage cannot be tested.
    """
    checks = [
        _check("entropy core: round trip", lambda: _round_trip(bundle.entropy)),
        _check("entropy core: scalar code", lambda: _same_as_scalar(bundle)),
    ]
    try:
        stored = bundle.references()
    except DLFError as error:
        return [*checks, Check("reference outputs", False, str(error))]
    if stored is None:
        fact = "no reference outputs in this bundle, so that its stages cannot be tested; export it again"
        return [*checks, Check("reference outputs", False, fact)]
    checks.append(_check("entropy core: stored file", lambda: _stored_file(bundle.entropy, stored)))
    if backend:
        checks += [_check(f"stage: {stage}", partial(_stage, bundle, backend, stored, stage)) for stage in STAGES]
    if isinstance(backend, HasSteps):
        steps = backend.steps(bundle, _untimed)
        checks.append(_check("between the stages: encoding", partial(_encoding, bundle, backend, steps)))
        checks.append(_check("between the stages: decoding", partial(_decoding, bundle, backend, steps, stored)))
    return checks


def _check(name: str, work: Callable[[], str]) -> Check:
    """Return the check whose fact `work` returns, or whose failure it raises."""
    try:
        return Check(name, True, work())
    except (_FailedError, DLFError) as error:
        return Check(name, False, str(error))
    except Exception as error:  # whatever a backend's library raises
        return Check(name, False, f"{type(error).__name__}: {error}")


def _round_trip(entropy: EntropyModel) -> str:
    y, tokens = _made_up(entropy)
    data, y_hat = _encode(entropy, y, tokens)
    found, detail = entropy.read_file(data, parse_file(data))
    if not np.array_equal(found, tokens):
        raise _FailedError("the tokens of a file are not those that were written")
    if not np.array_equal(entropy.decode_detail(detail, *y.shape[1:]), y_hat):
        raise _FailedError("the detail latent that is decoded is not what the encoder saw")
    return f"{len(data)} bytes, exact ({entropy.isa})"


def _same_as_scalar(bundle: Bundle) -> str:
    with _environment("DLF_ISA", "scalar"):
        scalar = EntropyModel((bundle.path / "entropy.bin").read_bytes())
    y, tokens = _made_up(bundle.entropy)
    data, y_hat = _encode(bundle.entropy, y, tokens)
    scalar_data, scalar_y_hat = _encode(scalar, y, tokens)
    if data != scalar_data or not np.array_equal(y_hat, scalar_y_hat):
        raise _FailedError(f"the {bundle.entropy.isa} code does not give what the scalar code gives; set DLF_ISA=scalar")
    return f"{bundle.entropy.isa} is the same, bit by bit"


def _stored_file(entropy: EntropyModel, stored: References) -> str:
    if references.y_hat_sha256(references.latents(entropy, stored.file)) != stored.y_hat_sha256:
        raise _FailedError("a file written where the bundle was exported decodes to another detail latent here")
    return f"{len(stored.file)} bytes from where the bundle was exported, exact"


def _stage(bundle: Bundle, backend: Backend, stored: References, stage: str) -> str:
    outputs = stages.load(backend, bundle, stage)(stored.inputs(stage, bundle.entropy))
    found = stored.errors(stage, outputs)
    on_gpu = isinstance(backend, HasSteps)
    precision = "tf32" if on_gpu and bundle.allows_tf32(stage) else bundle.manifest["stages"][stage]["precision"]
    if precision not in TOLERANCE:
        raise _FailedError(f"no tolerance is known for the precision {precision!r}")
    limit = max(TOLERANCE[precision], TOLERANCE.get(backend.precision, 0))
    worst = max(found, key=lambda name: found[name])
    fact = f"relative error {found[worst]:.1e} ({worst}), of at most {limit:.0e}"
    if not found[worst] <= limit:
        raise _FailedError(fact)
    return fact


def _encoding(bundle: Bundle, backend: Backend, steps: Steps) -> str:
    """Encode a picture with the backend's steps and with those on the CPU, and compare tokens and detail latents."""
    entropy, pixels = bundle.entropy, references.picture()[:-6, :-12]  # not of whole tiles
    analysis = stages.load(backend, bundle, "analysis")
    coded = []
    for way in (steps, HostSteps(entropy, _untimed)):
        latents = analysis({"image": way.pad([pixels])})
        coded += way.encode(latents["z"], latents["y"])
    (tokens, detail), (host_tokens, host_detail) = coded
    size = 8 * references.DOWN, 8 * references.ACROSS
    y_hat, host_y_hat = (entropy.decode_detail(each, *size) for each in (detail, host_detail))
    changed = float(np.mean(tokens != host_tokens))
    error = float(np.linalg.norm(y_hat - host_y_hat)) / max(float(np.linalg.norm(host_y_hat)), 1e-15)
    fact = f"{changed:.1%} of the tokens changed, relative error {error:.1e} of the detail latent, against the CPU"
    if changed > TOKENS_CHANGED or error > LATENT_ERROR:
        raise _FailedError(fact)
    return fact


def _decoding(bundle: Bundle, backend: Backend, steps: Steps, stored: References) -> str:
    """Decode the stored file with the backend's steps and with those on the CPU, and compare the pictures."""
    file = parse_file(stored.file)
    tokens, detail = bundle.entropy.read_file(stored.file, file)
    ways = (steps, HostSteps(bundle.entropy, _untimed))
    arrays = [way.decode([tokens], [detail], references.DOWN, references.ACROSS) for way in ways]
    for stage in STAGES[1:]:
        loaded = stages.load(backend, bundle, stage)
        arrays = [loaded(each) for each in arrays]
    size = file.height - 6, file.width - 12
    pictures = [way.crop(each["image"], [size], False)[0].astype(int) for way, each in zip(ways, arrays, strict=True)]
    levels = int(np.abs(pictures[0] - pictures[1]).max())
    fact = f"at most {levels} of 255 levels from the CPU"
    if levels > LEVELS:
        raise _FailedError(fact)
    return fact


def _untimed(_: str) -> AbstractContextManager[None]:
    return nullcontext()


def _made_up(entropy: EntropyModel) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """Return a detail latent (C, 16, 24) in -4..4 and tokens (6, 32), computed from integers: equal on every machine."""
    numbers = np.arange(entropy.channels * 16 * 24, dtype=np.uint32) * np.uint32(2654435761) >> np.uint32(16)
    y = ((numbers % 2049 - 1024.0) / 256).astype(np.float32)
    tokens = numbers[: 6 * TOKENS_PER_TILE] % entropy.codebook_size
    return y.reshape(entropy.channels, 16, 24), tokens.astype(np.uint16).reshape(6, TOKENS_PER_TILE)


def _encode(entropy: EntropyModel, y: NDArray[np.float32], tokens: NDArray[np.uint16]) -> tuple[bytes, NDArray[np.float32]]:
    """Return the file of a 768x512 image, and the detail latent that a decoder reconstructs from it."""
    detail, y_hat = entropy.encode_detail_with_reconstruction(y)
    return entropy.write_file(768, 512, tokens, detail), y_hat


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set an environment variable while the block runs; libdlf reads it when it opens a model."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
