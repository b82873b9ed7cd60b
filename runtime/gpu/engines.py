"""The cache of TensorRT engines: finds the one for a stage on this GPU, and says why others are not used.

An engine is good for one graph with its weights, one library and version of it, one GPU and platform, and the image sizes
of its profiles. Each is a file `STAGE-DIGEST.engine` with a sidecar `STAGE-DIGEST.json`, which says all that, and the
engine's size and SHA-256. The sidecar is written last; an engine without one was not finished. An engine's bytes are checked
against it before anything is done with them; a file that was checked once, `STAGE-DIGEST.checked`, is not hashed again as long
as its size, inode and times stay. Any doubt makes an engine unused, with a reason in the log, never an error.

Beside an engine of TensorRT-RTX lies `STAGE-DIGEST.runtime`, with the kernels that it compiled on this machine.

Engines are built by `dlf.export.engine`, in a process of its own (`build_command`); this module only keeps them. libdlf finds
them by the same rules (native/src/backends/engine_cache.h): change both together.
"""

import fcntl
import hashlib
import json
import logging
import os
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.files import cache_folder, write_atomically
from dlf.runtime.formats import TILE
from dlf.runtime.gpu.tensorrt_library import is_rtx

_log = logging.getLogger(__name__)

# Of the way engines are built and kept; to be raised when a change to either makes older engines useless.
BUILD = 2
_PIECE = 1 << 22  # bytes that are read and then hashed, while they are in the processor's cache
_DIGEST = hashlib.sha256().digest_size


class Size(NamedTuple):
    """A batch: n images of h by w tiles of 256x256 pixels."""

    n: int
    h: int
    w: int

    def shape(self, dimensions: Sequence[int | str]) -> tuple[int, ...]:
        """Return the shape that a manifest describes, such as `["n", 3, "256*h", "256*w"]`, at this size."""
        sizes = self._asdict()
        return tuple(prod(sizes.get(factor) or int(factor) for factor in str(d).split("*")) for d in dimensions)


class Profile(NamedTuple):
    """The sizes that an engine takes, each of n, h and w between its minimum and its maximum, and the one it is tuned for."""

    min: Size
    opt: Size
    max: Size

    @classmethod
    def static(cls, size: Size) -> "Profile":
        """Return the profile of one size."""
        return cls(size, size, size)

    def covers(self, size: Size) -> bool:
        """Whether the engine takes this size with this profile."""
        return all(low <= s <= high for low, s, high in zip(self.min, size, self.max, strict=True))


# Of every engine: one image of up to 2048x2048 pixels, tuned for 768x512, and batches of up to 16 smaller ones.
DEFAULT_PROFILES = (
    Profile(Size(1, 1, 1), Size(1, 2, 3), Size(1, 8, 8)),
    Profile(Size(1, 1, 1), Size(8, 2, 3), Size(16, 3, 3)),
)


def choose_profile(profiles: Sequence[Profile], size: Size) -> int | None:
    """Return the index of the profile of the smallest maximum that takes a size; None if none does."""
    covering = [i for i, profile in enumerate(profiles) if profile.covers(size)]
    return min(covering, key=lambda i: _looseness(profiles[i]), default=None)


def _looseness(profile: Profile) -> tuple[int, int]:
    return prod(profile.max), prod(profile.max) - prod(profile.min)


@dataclass(frozen=True)
class EngineKey:
    """What an engine depends on, except for the sizes."""

    stage: str
    graph: str  # SHA-256 of the stage's graph and weights, `Bundle.stage_digest`
    precision: str
    library: str  # module, "tensorrt" or "tensorrt_rtx"
    version: str
    gpu: str  # as `gpu_name` spells it
    platform: str  # such as "linux-x86_64"
    build: int = BUILD


def engine_key(bundle: Bundle, stage: str, library: ModuleType, gpu: str) -> EngineKey:
    """Return the key of a stage's engine on this platform.

    Args:
        bundle: the bundle; its weights are not read.
        stage: a stage's name.
        library: what `trt.load` gives.
        gpu: the GPU, as `gpu_name` spells it.

    Raises:
        BundleBrokenError: the bundle has no such stage, or its graph is not what the manifest says.
    """
    return EngineKey(
        stage=stage,
        graph=bundle.stage_digest(stage),
        precision="tf32" if bundle.allows_tf32(stage) else bundle.manifest["stages"][stage]["precision"],
        library=library.__name__,
        version=library.__version__,
        gpu=gpu,
        platform=sysconfig.get_platform(),
    )


def gpu_name(library: ModuleType, capability: tuple[int, int], name: str) -> str:
    """Return the name of a GPU in an engine's key: "sm_89"; in TensorRT, which tunes for one model, "sm_89 NVIDIA L4".

    Args:
        library: what `trt.load` gives.
        capability: the compute capability, such as (8, 9).
        name: the device's name.
    """
    architecture = "sm_{}{}".format(*capability)
    return architecture if is_rtx(library) else f"{architecture} {name}"


@dataclass(frozen=True)
class Engine:
    """An engine in the cache, as its sidecar tells.

    Attributes:
        path: the engine's file.
        key: what it was built for.
        profiles: the sizes that it takes, in the order of its optimisation profiles.
        bytes: size of the file.
        sha256: digest of the file, in hexadecimal.
        facts: what the builder noted, such as the seconds it took.
    """

    path: Path
    key: EngineKey
    profiles: tuple[Profile, ...]
    bytes: int
    sha256: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Lookup:
    """What the cache has for a size.

    Attributes:
        engine: the engine to use; None if there is none.
        plan: its bytes, checked; empty if there is none.
        profile: the index of the profile to use.
        reasons: why each other cached engine of the stage is not used.
    """

    engine: Engine | None
    plan: bytes | bytearray
    profile: int
    reasons: tuple[str, ...]


class _UnusableError(Exception):
    """Why an engine is not used."""


class EngineCache:
    """The engines in one folder.

    Attributes:
        folder: by default `dlf/engines` in the user's cache folder; made, readable by the user only, when it is first written to.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder() / "engines"

    def find(self, key: EngineKey, size: Size) -> Lookup:
        """Find the engine that serves a size best, and read it; the reasons against the others are logged too.

        It is the one with the tightest profile, of those whose bytes are what their sidecars say.
        """
        reasons = []
        usable: list[tuple[Engine, int]] = []
        for path in sorted(self.folder.glob(f"{_file_name(key.stage)}-*.engine")):
            try:
                engine = _read_sidecar(path)
                usable.append((engine, _profile_for(engine, key, size)))
            except _UnusableError as reason:
                reasons.append(f"{path.name} is not used: it {reason}.")
        usable.sort(key=lambda found: _looseness(found[0].profiles[found[1]]))
        engine_found, plan, index = None, bytearray(), 0
        for engine, profile in usable:
            if engine_found:
                reasons.append(f"{engine.path.name} is not used: {engine_found.path.name} serves this size as well or better.")
                continue
            try:
                plan = _read_plan(engine)
                engine_found, index = engine, profile
            except _UnusableError as reason:
                reasons.append(f"{engine.path.name} is not used: it {reason}.")
        if not usable and not reasons:
            reasons.append(f"No engine of stage {key.stage} is in {self.folder}.")
        for text in reasons:
            _log.info("%s", text)
        return Lookup(engine_found, plan, index, tuple(reasons))

    def get(self, key: EngineKey, profiles: Sequence[Profile]) -> Engine | None:
        """Return the engine of exactly this key and these profiles; None if it is missing or damaged. The reason is logged."""
        path = self.path(key, profiles)
        if not path.exists():
            _log.info("%s is not in %s.", path.name, self.folder)
            return None
        try:
            engine = _read_sidecar(path)
            _read_plan(engine)
        except _UnusableError as reason:
            _log.info("%s is not used: it %s.", path.name, reason)
            return None
        return engine

    def put(self, key: EngineKey, profiles: Sequence[Profile], plan: bytes | memoryview, **facts: object) -> Engine:
        """Write an engine into the cache. The caller holds its `lock`.

        Raises:
            OSError: it cannot be written.
        """
        self._make_folder()
        path = self.path(key, profiles)
        engine = Engine(path, key, tuple(profiles), memoryview(plan).nbytes, hashlib.sha256(plan).hexdigest(), facts)
        sidecar = {**asdict(engine), "path": path.name}
        path.with_suffix(".json").unlink(missing_ok=True)
        write_atomically(path, plan)
        write_atomically(path.with_suffix(".json"), json.dumps(sidecar, indent=1).encode())
        return engine

    def engines(self) -> Iterator[Engine]:
        """Yield all engines with a readable sidecar, sorted by name; their bytes are not checked."""
        for path in sorted(self.folder.glob("*.engine")):
            try:
                yield _read_sidecar(path)
            except _UnusableError as reason:
                _log.info("%s is not used: it %s.", path.name, reason)

    def path(self, key: EngineKey, profiles: Sequence[Profile]) -> Path:
        """Return the path of the engine of a key and profiles, whether it exists or not."""
        text = json.dumps([asdict(key), profiles])
        return self.folder / f"{_file_name(key.stage)}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.engine"

    @contextmanager
    def lock(self, key: EngineKey, profiles: Sequence[Profile]) -> Iterator[None]:
        """Hold the right to build an engine. While another process has it, say so and wait.

        A caller that had to wait should look whether the engine is there now. A process that dies gives the right back.
        """
        self._make_folder()
        with self.path(key, profiles).with_suffix(".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _log.warning("Another process builds this engine of stage %s; waiting for it.", key.stage)
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _make_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)


def build_command(bundle: Bundle, gpu: str, size: Size | None = None, stage: str | None = None) -> list[str]:
    """Return the command that builds engines that take `size`, of a bundle or one stage, for a GPU. It needs Polygraphy."""
    command = [sys.executable, "-m", "dlf.export.engine", str(bundle.path), "--gpu", gpu]
    if size is not None and choose_profile(DEFAULT_PROFILES, size) is None:
        command += ["--size", f"{TILE * size.w}x{TILE * size.h}x{size.n}"]
    return command if stage is None else [*command, "--stage", stage]


def _file_name(stage: str) -> str:
    """Return a stage's name, which any bundle may choose, as part of a file's name."""
    return re.sub(r"\W", "_", stage)


def _read_sidecar(path: Path) -> Engine:
    sidecar = path.with_suffix(".json")
    try:
        content = json.loads(sidecar.read_bytes())
        return Engine(
            path,
            EngineKey(**content["key"]),
            tuple(Profile(*(Size(*map(int, size)) for size in profile)) for profile in content["profiles"]),
            int(content["bytes"]),
            str(content["sha256"]),
            dict(content["facts"]),
        )
    except FileNotFoundError as error:
        raise _UnusableError("has no sidecar, so that it was not finished") from error
    except OSError as error:
        raise _UnusableError(f"has a sidecar that cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _UnusableError(f"has a sidecar that lacks or garbles a field ({type(error).__name__}: {error})") from error


def _profile_for(engine: Engine, key: EngineKey, size: Size) -> int:
    """Return the index of the engine's profile for a size. Raises _UnusableError."""
    ours, its = asdict(key), asdict(engine.key)
    if differing := [f"{name} {its[name]}, not {ours[name]}" for name in ours if its[name] != ours[name]]:
        raise _UnusableError(f"was built for {'; '.join(differing)}")
    index = choose_profile(engine.profiles, size)
    if index is None:
        raise _UnusableError("was built for other sizes than {} images of {} by {} tiles".format(*size))
    return index


def _read_plan(engine: Engine) -> bytearray:
    """Read an engine's bytes, and check them unless this very file was checked before."""
    digest = hashlib.sha256()
    try:
        with engine.path.open("rb", buffering=0) as file:
            stamp = _stamp(os.fstat(file.fileno()), engine.sha256)
            checked = _was_checked(engine, stamp)
            size = os.fstat(file.fileno()).st_size
            if size != engine.bytes:
                raise _UnusableError(f"has {size} bytes, not {engine.bytes}")
            plan = bytearray(size)
            rest = memoryview(plan)
            while rest and (count := file.readinto(rest[:_PIECE])):
                if not checked:
                    digest.update(rest[:count])
                rest = rest[count:]
            unchanged = stamp == _stamp(os.fstat(file.fileno()), engine.sha256)
    except OSError as error:
        raise _UnusableError(f"cannot be read ({error.strerror})") from error
    if rest or not unchanged:
        raise _UnusableError("was changed while it was read")
    if not checked:
        if digest.hexdigest() != engine.sha256:
            raise _UnusableError("is not what the SHA-256 in its sidecar says")
        _write_if_possible(engine.path.with_suffix(".checked"), stamp)
    return plan


def _stamp(status: os.stat_result, sha256: str) -> bytes:
    """Return what the file system changes when a file is changed, and the digest that the file was found to have."""
    numbers = status.st_size, status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns
    return json.dumps([*numbers, sha256]).encode()


def _was_checked(engine: Engine, stamp: bytes) -> bool:
    try:
        return engine.path.with_suffix(".checked").read_bytes() == stamp
    except OSError:
        return False


def read_runtime_cache(engine: Engine) -> bytes | None:
    """Return what `write_runtime_cache` was given last; None if there is nothing, or if it is damaged."""
    try:
        data = engine.path.with_suffix(".runtime").read_bytes()
    except OSError:
        return None
    digest, content = data[:_DIGEST], data[_DIGEST:]
    return content if hashlib.sha256(content).digest() == digest else None


def write_runtime_cache(engine: Engine, content: bytes) -> None:
    """Keep the kernels that TensorRT-RTX compiled for an engine. Where the folder cannot be written, they are compiled again."""
    _write_if_possible(engine.path.with_suffix(".runtime"), hashlib.sha256(content).digest() + content)


def _write_if_possible(path: Path, data: bytes) -> None:
    try:
        write_atomically(path, data)
    except OSError as error:
        _log.info("%s cannot be written (%s).", path, error.strerror)
