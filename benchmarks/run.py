"""A whole run of dlf-bench: every bundle on every image, then its speed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import dlf
from dlf.benchmarks import machine, measure, progress_file, speed
from dlf.benchmarks.records import Failure, ImageResult, ModelResult
from dlf.runtime.bundle import file_sha256
from dlf.runtime.errors import DLFError, InvalidArgumentError

METRIC_PACKAGES = ("numpy", "pillow", "torch", "pytorch-msssim", "pillow-jxl-plugin")


@dataclass(frozen=True)
class Settings:
    """What to measure, and how."""

    images: Sequence[Path]
    models: Sequence[Path]
    metrics: Sequence[str]
    backend: str | None = None
    threads: int | None = None
    rivals: Sequence[str] = ()
    baselines: Sequence[str] = ()  # "torch" or backends
    checkpoint: Path | None = None
    repeats: int = 0  # timed ones; with 0 speed is not measured
    batches: Sequence[int] = ()
    with_pictures: bool = False


@dataclass
class Progress:
    """What a run tells while it runs: an image is done, an image failed, a speed measurement begins."""

    image: Callable[[str], None] = lambda _: None
    failure: Callable[[Failure], None] = lambda _: None
    speed: Callable[[str], None] = lambda _: None


@dataclass
class Outcome:
    """The results by model, with the pictures of each: model -> image -> codec -> data URI."""

    models: list[ModelResult] = field(default_factory=list)
    pictures: dict[str, dict[str, measure.Pictures]] = field(default_factory=dict)


def run(settings: Settings, kept: progress_file.ProgressFile, progress: Progress) -> Outcome:
    """Measure. An image that fails is recorded, and the others are done.

    Raises:
        DLFError: a bundle cannot be opened, or its speed not be measured.
    """
    from dlf.benchmarks.metrics import Metrics  # torch

    compare = Metrics(settings.metrics)
    outcome = Outcome()
    for path, name in zip(settings.models, _distinct_names(settings.models), strict=True):
        with dlf.Codec(path, settings.backend, settings.threads) as codec:
            found = ModelResult(
                model=name,
                bundle=str(path),
                fingerprint=codec.bundle.fingerprint,
                manifest_sha256=file_sha256(path / "manifest.json"),
                backend=codec.backend.name,
                device=codec.backend.device,
                precision=codec.backend.precision,
                versions={**codec.backend.versions, **machine.versions(*METRIC_PACKAGES)},
                images=[],
                failures=[],
            )
            outcome.pictures[name] = _images(settings, codec, compare, kept, progress, found)
        if settings.repeats:
            timed = speed.measure(
                settings.images[0],
                path,
                [found.backend, *(peer for peer in settings.baselines if peer != found.backend)],
                checkpoint=settings.checkpoint,
                threads=settings.threads,
                repeats=settings.repeats,
                batches=settings.batches,
                tell=progress.speed,
            )
            found = replace(found, speed=timed)
        outcome.models.append(found)
    return outcome


def _images(
    settings: Settings,
    codec: dlf.Codec,
    compare: measure.Compare,
    kept: progress_file.ProgressFile,
    progress: Progress,
    found: ModelResult,
) -> dict[str, measure.Pictures]:
    """Measure every image into `found`; the pictures of each."""
    depends: Mapping[str, object] = {
        "dlf": dlf.__version__,
        "manifest": found.manifest_sha256,
        "backend": [found.backend, found.device, found.precision, found.versions],
        "threads": settings.threads,
        "metrics": list(settings.metrics),
        "rivals": list(settings.rivals),
        "pictures": settings.with_pictures,
    }
    pictures = {}
    for path in settings.images:
        try:
            result, shown = _one(path, progress_file.key(path, depends), settings, codec, compare, kept)
        except Exception as error:
            fact = str(error) if isinstance(error, (DLFError, OSError)) else f"unexpected {type(error).__name__}: {error}"
            found.failures.append(Failure(path.name, fact))
            progress.failure(found.failures[-1])
        else:
            found.images.append(result)
            pictures[path.name] = shown
        progress.image(path.name)
    return pictures


def _one(
    path: Path,
    key: str,
    settings: Settings,
    codec: dlf.Codec,
    compare: measure.Compare,
    kept: progress_file.ProgressFile,
) -> tuple[ImageResult, measure.Pictures]:
    if before := kept.find(key):
        return before
    result, shown = measure.image(path, codec, compare, settings.rivals, settings.with_pictures)
    kept.add(key, result, shown)
    return result, shown


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    """The folders' names, or whole paths where two are equal."""
    if len(set(paths)) < len(paths):
        raise InvalidArgumentError("A bundle is given twice.")
    names = [path.resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]
