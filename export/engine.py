"""TensorRT engines of a bundle's stages, built into the engine cache of this user.

    python -m dlf.export.engine BUNDLE [--gpu sm_89]... [--size 768x512]... [--stage generator]...

TensorRT builds for the GPU that it runs on. TensorRT-RTX builds for any GPU that it knows, without one: what its engines
hold is compiled to the end when they are first run. Precision is the graph's: networks are strongly typed. TF32 is
on only where the bundle's manifest allows it (`dlf.export.tf32`).

Exit codes: 0 all engines are in the cache; 1 refused; 2 wrong usage; 130 interrupted.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Annotated, Any

import typer
from rich.console import Console

import dlf
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import BackendMissingError, DLFError, ExportError, InvalidArgumentError
from dlf.runtime.formats import STAGES, TILE
from dlf.runtime.gpu import driver, tensorrt_library
from dlf.runtime.gpu.engines import DEFAULT_PROFILES, Engine, EngineCache, Profile, Size, engine_key, gpu_name

log = logging.getLogger("dlf.export.engine")  # also where this is __main__


def build_engine(bundle: Bundle, stage: str, gpu: str, sizes: Iterable[Size] = (), cache: EngineCache | None = None) -> Engine:
    """Return a stage's engine from the cache, after building it if it is not there.

    It takes the sizes of `DEFAULT_PROFILES`, and has a static profile for each of `sizes`, with the same weights for all.

    Args:
        bundle: the bundle.
        stage: the stage's name.
        gpu: what `target_gpus` gives.
        sizes: sizes to tune for.
        cache: by default the user's.

    Raises:
        BackendMissingError, BackendFailedError: there is no TensorRT, see `tensorrt_library.load`, or no Polygraphy.
        BundleBrokenError: the bundle has no such stage, or its files are not what the manifest says.
        ExportError: TensorRT refuses the graph, or fails.
        OSError: the cache cannot be written.
    """
    cache = cache or EngineCache()
    library = tensorrt_library.load()
    key = engine_key(bundle, stage, library, gpu)
    profiles = (*DEFAULT_PROFILES, *map(Profile.static, dict.fromkeys(sizes)))
    with cache.lock(key, profiles):
        if engine := cache.get(key, profiles):
            return engine
        file = bundle.stage(stage)
        timings = cache.folder / re.sub(r"[^\w.]+", "-", f"{key.library} {key.version} {gpu}.timings")
        start = perf_counter()
        tf32 = bundle.allows_tf32(stage)
        plan = _build(library, file, bundle.manifest["stages"][stage]["inputs"], gpu, profiles, timings, tf32)
        seconds = perf_counter() - start
        engine = cache.put(key, profiles, memoryview(plan), dlf=dlf.__version__, seconds=round(seconds, 1))
    log.info("Built %s for %s: %.1f MB in %.1f s.", engine.path.name, gpu, engine.bytes / 1e6, seconds)
    return engine


def _build(
    library: ModuleType,
    file: Path,
    inputs: Sequence[dict[str, Any]],
    gpu: str,
    profiles: Sequence[Profile],
    timings: Path,
    tf32: bool,
) -> Any:
    """Build a graph's engine; `timings` keeps what TensorRT measures of its kernels, for the next engine."""
    try:
        import polygraphy.config
    except ImportError as error:
        raise BackendMissingError(f"Polygraphy cannot be imported ({error}); run: pip install polygraphy onnx.") from error
    # Read when the modules below are first imported.
    polygraphy.config.USE_TENSORRT_RTX = tensorrt_library.is_rtx(library)
    from polygraphy.backend import trt as poly
    from polygraphy.backend.tensorrt_rtx import CreateConfigRTX
    from polygraphy.exception import PolygraphyException

    ranges = [_poly_profile(inputs, profile) for profile in profiles]

    def configure_tensorrt(builder: Any, network: Any) -> Any:
        known = str(timings) if timings.exists() else None
        # Without it the memory for the largest size is wanted for every size.
        features = [library.PreviewFeature.RUNTIME_ACTIVATION_RESIZE_10_10]
        return poly.CreateConfig(profiles=ranges, load_timing_cache=known, preview_features=features, tf32=tf32)(builder, network)

    def configure_rtx(builder: Any, network: Any) -> Any:
        config = CreateConfigRTX(profiles=ranges, compute_capabilities=[_capability(gpu)])(builder, network)
        if not tf32:
            config.clear_flag(library.BuilderFlag.TF32)  # as CreateConfig does
        # Without it an engine may allocate while it runs, and then cannot be recorded as a CUDA graph.
        config.set_flag(library.BuilderFlag.REQUIRE_USER_ALLOCATION)
        return config

    with _errors() as errors:
        try:
            network = poly.network_from_onnx_path(str(file), strongly_typed=True)
            if tensorrt_library.is_rtx(library):  # it measures nothing, so that there are no timings
                return poly.engine_bytes_from_network(network, configure_rtx)
            return poly.engine_bytes_from_network(network, configure_tensorrt, save_timing_cache=str(timings))
        except PolygraphyException as error:
            raise ExportError(
                f"{file}: {tensorrt_library.LIBRARIES[library.__name__]} {library.__version__} builds no engine for {gpu} of it: "
                f"{' '.join(dict.fromkeys(errors)) or error}"
            ) from error


def _poly_profile(inputs: Sequence[dict[str, Any]], profile: Profile) -> Any:
    from polygraphy.backend.trt import Profile as PolyProfile

    shapes = PolyProfile()
    for port in inputs:
        shapes.add(port["name"], *(size.shape(port["shape"]) for size in profile))
    return shapes


@contextmanager
def _errors() -> Iterator[list[str]]:
    """Send what Polygraphy and TensorRT have to say to the logger "Polygraphy", and collect the errors."""
    from polygraphy.logger import G_LOGGER

    G_LOGGER.use_python_logging_system, G_LOGGER.colors, G_LOGGER.letter = True, False, False
    errors: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: errors.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("Polygraphy")
    logger.addHandler(handler)
    try:
        yield errors
    finally:
        logger.removeHandler(handler)


def target_gpus(names: Sequence[str] = ()) -> list[str]:
    """The GPUs to build for, as the cache spells them: those named, such as "sm_89", or the one that is here.

    Raises:
        BackendMissingError, BackendFailedError: there is no TensorRT, see `tensorrt_library.load`.
        InvalidArgumentError: a name is not one that the installed library can build for, or none is given and no GPU is here.
    """
    library = tensorrt_library.load()
    first = driver.describe()
    here = first and gpu_name(library, *first)
    if not names:
        if here is None:
            raise InvalidArgumentError("there is no NVIDIA GPU here; name those to build for, such as --gpu sm_89")
        names = [here]
    return [_target(library, here, name) for name in dict.fromkeys(names)]


def _target(library: ModuleType, here: str | None, name: str) -> str:
    if tensorrt_library.is_rtx(library):
        known = [f"sm_{member[2:]}" for member in library.ComputeCapability.__members__ if member.startswith("SM")]
        if name not in known:
            raise InvalidArgumentError(
                f"TensorRT-RTX {library.__version__} builds for {', '.join(known)}, not for {name}; TensorRT may, where it runs"
            )
        return name
    if here is None or name not in (here, here.split()[0]):
        raise InvalidArgumentError(
            f"TensorRT builds only for the GPU that it runs on ({here or 'there is none'}), not for {name}; TensorRT-RTX can"
        )
    return here


def _capability(gpu: str) -> tuple[int, int]:
    number = gpu.split()[0].removeprefix("sm_")
    return int(number[:-1]), int(number[-1])


def parse_size(text: str) -> Size:
    """A size as the command line spells it, WIDTHxHEIGHT or WIDTHxHEIGHTxIMAGES in pixels, in whole tiles.

    Raises:
        InvalidArgumentError: it is spelled in another way.
    """
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})(?:x([1-9]\d{0,2}))?", text)
    if match is None:
        raise InvalidArgumentError(f"{text!r} is not a size; write 768x512, or 768x512x8 for batches of 8 images")
    width, height, images = (int(number or 1) for number in match.groups())
    return Size(images, -(-height // TILE), -(-width // TILE))


def build_engines(
    bundle: Bundle, gpus: Iterable[str], console: Console, sizes: Sequence[Size] = (), stages: Sequence[str] = ()
) -> None:
    """Build the engines of a bundle, all stages by default, and tell of each on `console`; see `build_engine`."""
    stages = stages or STAGES
    for gpu in gpus:
        for number, stage in enumerate(stages, 1):
            with console.status(f"building the engine of {stage} ({number} of {len(stages)}) for {gpu}"):
                engine = build_engine(bundle, stage, gpu, sizes)
            console.print(f"{stage} for {gpu}: {engine.path}, {engine.bytes / 1e6:.1f} MB")


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder that dlf-export has written.")],
    gpu: Annotated[
        list[str] | None, typer.Option(metavar="sm_XX", help="GPU to build for; may be repeated. By default this machine's.")
    ] = None,
    size: Annotated[
        list[str] | None, typer.Option(metavar="WxH[xN]", help="Image size to tune for, in pixels, and images at a time.")
    ] = None,
    stage: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Stage to build; may be repeated. By default all.")
    ] = None,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Tell why cached engines are not used.")] = False,
) -> None:
    """Build the TensorRT engines of a bundle into this user's engine cache; those that are there are kept."""
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("dlf").setLevel(logging.INFO if verbose else logging.WARNING)
    stderr = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    try:
        sizes = [parse_size(text) for text in size or ()]
        build_engines(Bundle(bundle), target_gpus(gpu or ()), stderr, sizes, stage or ())
    except InvalidArgumentError as error:
        raise typer.BadParameter(str(error)) from error
    except (DLFError, OSError) as error:
        stderr.print(f"dlf.export.engine: {error}")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


if __name__ == "__main__":
    app(prog_name="python -m dlf.export.engine")
