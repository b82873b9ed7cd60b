"""The `dlf` command: encode images to `.dlf` files, decode them, describe them; examine the installation.

Results meant for programs go to stdout, everything else to stderr. Exit codes: 0 done; 1 a file failed and the others were
done; 2 wrong usage; 130 interrupted.
"""

import errno
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from io import BytesIO, TextIOWrapper
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

import dlf
from dlf.runtime.backends.choice import INSTALL
from dlf.runtime.bundles import builtin
from dlf.runtime.bundles.listing import listed
from dlf.runtime.codec import Codec
from dlf.runtime.console import log_to_stderr, showing_steps, shows_progress, tell, tracked
from dlf.runtime.corpus.cli import app as corpus
from dlf.runtime.errors import DLFError, InvalidArgumentError
from dlf.runtime.files import is_replaced, write_atomically
from dlf.runtime.formats import SIGNATURE
from dlf.runtime.images import PNG_LEVEL, ImageLike, Pixels, encode_as, format_of, load, metadata_of
from dlf.runtime.info import info as describe
from dlf.runtime.libdlf import Limits, Metadata, read_metadata
from dlf.runtime.options import parse_bytes, takes
from dlf.runtime.rate import Rate
from dlf.runtime.serve.cli import serve
from dlf.runtime.streams import abandon_stdout, printing, read_stdin, write_stdout

STDIO = "-"

app = typer.Typer(
    help="Encode images to .dlf files of 0.008 to 0.03 bits per pixel, and decode them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Files = Annotated[list[str], typer.Argument(metavar="FILE", help="Files; - is standard input.", show_default=False)]
Output = Annotated[
    str | None,
    typer.Option("-o", "--output", metavar="FILE|DIR", help="Where to write; - is standard output. By default beside the input."),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="BUNDLE",
        envvar="DLF_MODEL",
        help="The model: a folder that dlf-export has written, or one that holds several. By default the built-in one.",
    ),
]
BackendName = Annotated[str | None, typer.Option(metavar="|".join(INSTALL), help="By default the fastest here.")]
Device = Annotated[
    str | None,
    typer.Option(metavar="cpu|cuda|cuda:N", help="By default a GPU if dlf doctor has passed on it, otherwise the CPU."),
]
Threads = Annotated[int | None, typer.Option(metavar="N", min=1, help="CPU threads. By default as many as the backend chooses.")]
MaxPixels = Annotated[int, typer.Option(metavar="N", min=1, help="Refuse images of more pixels.")]
MaxSide = Annotated[int, typer.Option(metavar="N", min=1, help="Refuse images that are wider or higher.")]
MemoryLimit = Annotated[
    int | None,
    typer.Option(
        metavar="BYTES",
        parser=parse_bytes,
        help="Refuse what takes more memory, before it starts; such as 4G, of 1024 MiB each. By default what the machine or its "
        "control group has.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a file, each on a line, to standard output.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show what is in use, and the seconds of each step.")]

_LIMITS = Limits()


def main() -> None:
    """Run the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names of files may be no text
            stream.reconfigure(errors="surrogateescape")
    with printing() if sys.stdout else nullcontext():  # also of --help
        app(prog_name="dlf")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"dlf {dlf.__version__}")
        raise typer.Exit


@app.callback()
def _dlf(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


@dataclass(frozen=True)
class CodingOptions:
    """The options that `dlf encode` and `dlf decode` share."""

    files: Files
    output: Output = None
    model: Model = None
    backend: BackendName = None
    device: Device = None
    threads: Threads = None
    max_pixels: MaxPixels = _LIMITS.max_pixels
    max_side: MaxSide = _LIMITS.max_side
    memory_limit: MemoryLimit = None
    overwrite: Overwrite = False
    as_json: Json = False
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Tell nothing but failures.")] = False
    verbose: Verbose = False

    @property
    def limits(self) -> Limits:
        """The largest image that is encoded or decoded."""
        return Limits(self.max_pixels, self.max_side)

    def check(self, codec: Codec) -> None:
        """Refuse what the codec cannot do. Raises DLFError."""


@dataclass(frozen=True)
class EncodingOptions(CodingOptions):
    """The options of `dlf encode`."""

    quality: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Of a folder of several models: 0 is the lowest rate. By default the highest."),
    ] = None
    target_bytes: Annotated[
        int | None,
        typer.Option(
            metavar="BYTES",
            parser=parse_bytes,
            help="Of several models, take the one whose file is the largest that is not above.",
        ),
    ] = None
    target_bpp: Annotated[
        float | None, typer.Option(metavar="X", help="The same in bits of the file per pixel of the image.")
    ] = None

    exif: Annotated[bool, typer.Option("--exif", help="Keep the EXIF of the image, which may tell where it was taken.")] = False
    xmp: Annotated[bool, typer.Option("--xmp", help="Keep the XMP of the image.")] = False

    @property
    def rate(self) -> Rate:
        """The rate that is asked for. Raises InvalidArgumentError."""
        return Rate(self.quality, self.target_bytes, self.target_bpp)

    def kept(self, image: ImageLike) -> Metadata | None:
        """What is to be kept of an image's metadata."""
        if not (self.exif or self.xmp):
            return None
        found = metadata_of(image)
        return Metadata(found.exif if self.exif else b"", found.xmp if self.xmp else b"")

    def check(self, codec: Codec) -> None:
        """See `CodingOptions.check`."""
        self.rate.among(codec.qualities)


@dataclass(frozen=True)
class DecodingOptions(CodingOptions):
    """The options of `dlf decode`."""

    png_level: Annotated[
        int, typer.Option(metavar="0..9", min=0, max=9, help="Compression of PNG files: 1 is fast, 9 gives the smallest.")
    ] = PNG_LEVEL
    preview: Annotated[
        bool,
        typer.Option("--preview", help="Show what the tokens alone tell, unchecked, also of a file that is cut off behind them."),
    ] = False


@dataclass(frozen=True)
class Coded:
    """A file that was encoded or decoded."""

    pixels: Pixels
    data: bytes  # of the .dlf file
    seconds: float  # of the encoding or decoding, with the loading of stages
    preview: bool = False
    quality: int | None = None  # of the model that encoded it, where there are several


@app.command(
    epilog="""Examples:

    \b
    dlf encode photo.jpg                            writes photo.dlf
    dlf encode *.png -o small                       writes small/NAME.dlf
    dlf encode - < a.png > a.dlf
    dlf encode photo.jpg --model bundle             or DLF_MODEL=bundle
    dlf encode photo.jpg --model models --target-bytes 1000"""
)
@takes(EncodingOptions)
def encode(options: EncodingOptions) -> None:
    """Encode images to .dlf files. Of the images' metadata none is kept, unless --exif or --xmp is given.

    A model may be a folder of several, such as the four checkpoints of DLF's authors, one for each rate. --quality,
    --target-bytes or --target-bpp choose among them; if every file would be above the target, the smallest is written, with
    a warning.
    """

    def encode_one(codec: Codec, name: str, target: str) -> Coded:
        start = perf_counter()
        image = BytesIO(_read(name)) if name == STDIO else name
        pixels = load(image, options.limits)
        data = codec.encode(pixels, **asdict(options.rate), metadata=options.kept(image))
        seconds = perf_counter() - start
        _write(target, data)
        qualities = codec.qualities
        quality = qualities.index(describe(data, limits=options.limits).fingerprint) if len(qualities) > 1 else None
        return Coded(pixels, data, seconds, quality=quality)

    _code_each(options, ".dlf", encode_one)


@app.command(
    epilog="""Examples:

    \b
    dlf decode photo.dlf                            writes photo.png
    dlf decode photo.dlf -o photo.jpg
    dlf decode *.dlf -o large                       writes large/NAME.png
    dlf decode - < a.dlf > a.png
    head -c 300 a.dlf | dlf decode --preview - -o a.png    enough for 768x768 pixels with the built-in model"""
)
@takes(DecodingOptions)
def decode(options: DecodingOptions) -> None:
    """Decode .dlf files to images: PNG, or the format of the output's suffix.

    Metadata that a file keeps are written into PNG, JPEG, WebP and AVIF, but not into a preview.
    """

    def decode_one(codec: Codec, name: str, target: str) -> Coded:
        path = Path(target)
        suffix = ".png" if target == STDIO or (not path.suffix and not is_replaced(path)) else path.suffix  # pipes have none
        format_of(suffix)  # refuses before the work is done
        data = _read(name)
        start = perf_counter()
        pixels = codec.decode(data, detail=not options.preview)
        seconds = perf_counter() - start
        kept = None if options.preview else read_metadata(data)
        _write(target, encode_as(pixels, suffix, options.png_level, kept))
        return Coded(pixels, data, seconds, options.preview)

    _code_each(options, ".png", decode_one)


@app.command(
    epilog="""Examples:

    \b
    dlf info photo.dlf
    dlf info --json *.dlf"""
)
def info(
    files: Files,
    max_pixels: MaxPixels = _LIMITS.max_pixels,
    max_side: MaxSide = _LIMITS.max_side,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Describe .dlf files. This needs no model."""

    def info_one(name: str) -> None:
        found = describe(_read(name), limits=Limits(max_pixels, max_side))
        if as_json:
            with printing():
                print(json.dumps({"file": name, **found.to_dict()}))
            return
        size = found.bytes
        ours = f" (built-in, licence: {builtin.license()})" if found.fingerprint == builtin.fingerprint() else ""
        kept = f", {size.metadata} metadata: EXIF {found.exif}, XMP {found.xmp}" if size.metadata else ""
        with printing():
            print(
                f"{name}: {found.width}x{found.height}, {size.total} bytes ({size.header} header, {size.tokens} tokens, "
                f"{size.detail} detail, {size.checksum} checksum{kept}), {found.bpp:.4f} bpp, {found.tiles} tiles "
                f"({found.padding_waste:.0%} padding), model {found.fingerprint}{ours}, format version {found.version}"
            )

    _for_each(files, info_one, verbose, shows_progress(as_json=as_json))


@app.command(
    epilog="""Examples:

    \b
    dlf doctor                                      the built-in model
    dlf doctor --model bundle --backend onnxruntime"""
)
def doctor(
    model: Model = None,
    backend: BackendName = None,
    device: Device = None,
    threads: Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object to standard output.")] = False,
    verbose: Verbose = False,
) -> None:
    """Report what is installed and what would be used, and test that it computes correctly.

    Run this first on a new machine. Each stage of the model runs on the chosen backend, and its outputs are compared with
    those stored when the model was exported; the entropy core must be exact. Exit code 1 if any check fails, or if the bundle
    stores no outputs.
    """
    from rich.console import Console

    from dlf.runtime.doctor import examine
    from dlf.runtime.doctor.text import show

    log_to_stderr(logging.DEBUG if verbose else logging.WARNING)
    try:
        with showing_steps() if shows_progress(as_json=as_json) else nullcontext():
            report = examine(model, backend, threads, device)
    except InvalidArgumentError as error:
        raise typer.BadParameter(str(error)) from error
    with printing():
        if as_json:
            print(json.dumps({**asdict(report), "passed": report.passed}))
        else:
            show(report, Console())
    if not report.passed:
        raise typer.Exit(1)


app.command(
    epilog="""Examples:

    \b
    dlf serve                                       http://127.0.0.1:8000/ shows the page
    dlf serve --host 0.0.0.0 --workers 4 --threads 4
    curl --data-binary @photo.jpg http://127.0.0.1:8000/encode -o photo.dlf"""
)(serve)


@app.command(
    epilog="""Examples:

    \b
    dlf demo                                        a photograph that dlf brings, with the built-in model
    dlf demo photo.jpg --model bundle"""
)
def demo(
    image: Annotated[Path | None, typer.Argument(metavar="[IMAGE]", help="By default a photograph that dlf brings.")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Where to write.")] = Path("demo"),
    model: Model = None,
    backend: BackendName = None,
    device: Device = None,
    threads: Threads = None,
    verbose: Verbose = False,
) -> None:
    """Encode and decode a photograph, and write both side by side; the picture is opened if there is a display."""
    from dlf.runtime.demo import PHOTOGRAPH, run

    log_to_stderr(logging.DEBUG if verbose else logging.WARNING)
    try:
        with (
            showing_steps() if shows_progress() else nullcontext(),
            Codec(model, backend, threads, device=device, low_memory=True) as codec,
        ):
            file, picture = run(codec, image or PHOTOGRAPH, output)
            seconds, name = sum(codec.timings.values()), codec.backend.name
    except InvalidArgumentError as error:
        raise typer.BadParameter(str(error)) from error
    except (DLFError, OSError) as error:
        tell(f"dlf: {error}")
        raise typer.Exit(1) from error
    found = describe(file.read_bytes())
    tell(
        f"{found.width}x{found.height} pixels in {found.bytes.total} bytes, {found.bpp:.4f} bits per pixel; "
        f"decoded in {seconds:.2f} s, loading included, on {name}"
    )
    tell(f"wrote {file} and {picture}, with the original on the left")
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        typer.launch(str(picture))


@app.command(
    epilog="""Examples:

    \b
    dlf models                                      the built-in model
    dlf models --model models --json"""
)
def models(
    model: Model = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a bundle, each on a line.")] = False,
) -> None:
    """List the models in a folder, the lowest rate first: quality, name, fingerprint, precision, rate, licence, size."""
    try:
        found = listed(model)
    except DLFError as error:
        tell(f"dlf: {error}")
        raise typer.Exit(1) from error
    with printing():
        for each in found:
            rate = "rate not measured" if each.bits_per_pixel is None else f"{each.bits_per_pixel:.4f} bpp"
            quality = "no quality" if each.quality is None else f"quality {each.quality}"
            print(
                json.dumps(asdict(each))
                if as_json
                else f"{quality}: {each.name} ({each.fingerprint}) in {each.precision}, {rate}, "
                f"licence: {each.license or 'unknown'}, {each.bytes / 1e6:.1f} MB, {each.path}"
            )


app.add_typer(corpus, name="corpus")


def _targets(inputs: list[str], output: str | None, suffix: str, as_json: bool) -> dict[str, str]:
    """Return the target of each input: a path, or STDIO."""
    if len(set(inputs)) < len(inputs):
        raise typer.BadParameter("A file is given twice.")
    to_stdout = output == STDIO or (output is None and STDIO in inputs)
    if to_stdout and (len(inputs) > 1 or as_json):
        raise typer.BadParameter("Standard output takes one result and no --json; give a file or a folder.", param_hint="-o")
    if to_stdout:
        return {inputs[0]: STDIO}
    if bad := [name for name in inputs if name != STDIO and Path(name).name in ("", "..")]:
        raise typer.BadParameter(f"{bad[0]!r} is not the name of a file.")
    if output == "":
        raise typer.BadParameter("the name is empty.", param_hint="-o")
    if output is None:
        return _distinct({name: str(Path(name).with_suffix(suffix)) for name in inputs})
    if len(inputs) == 1 and not output.endswith(os.sep) and not os.path.isdir(output):
        return {inputs[0]: output}
    try:
        os.makedirs(output, exist_ok=True)
    except OSError as error:
        raise typer.BadParameter(f"{output}: {error.strerror}; many files need a folder.", param_hint="-o") from error
    stems = {name: "stdin" if name == STDIO else Path(name).stem for name in inputs}
    return _distinct({name: os.path.join(output, stem + suffix) for name, stem in stems.items()})


def _distinct(targets: dict[str, str]) -> dict[str, str]:
    inputs: dict[str, str] = {}
    for name, target in targets.items():
        if other := inputs.get(target):
            raise typer.BadParameter(f"{other} and {name} would both be written to {target}.", param_hint="-o")
        inputs[target] = name
    return targets


def _code_each(options: CodingOptions, suffix: str, work: Callable[[Codec, str, str], Coded]) -> None:
    """Encode or decode all files and tell of each; `work` gets the codec, the input and the target.

    A target is by default named as the input, with `suffix`.
    """
    targets = _targets(options.files, options.output, suffix, options.as_json)
    codec = _open(options)

    def work_on(name: str) -> None:
        _refuse_existing(targets[name], options.overwrite)
        coded = work(codec, name, targets[name])
        if options.as_json or not options.quiet:
            _report(codec, name, targets[name], coded, options.as_json)

    _for_each(options.files, work_on, options.verbose, shows_progress(quiet=options.quiet, as_json=options.as_json))


def _open(options: CodingOptions) -> Codec:
    log_to_stderr(logging.DEBUG if options.verbose else logging.ERROR if options.quiet else logging.WARNING)
    once = len(options.files) == 1  # then every stage runs once, and releasing it at once costs nothing
    try:
        codec = Codec(
            options.model,
            options.backend,
            options.threads,
            limits=options.limits,
            memory_limit=options.memory_limit,
            low_memory=once,
            device=options.device,
        )
        options.check(codec)
        return codec
    except InvalidArgumentError as error:
        raise typer.BadParameter(str(error)) from error
    except DLFError as error:
        tell(f"dlf: {error}")
        raise typer.Exit(1) from error


def _for_each(inputs: list[str], work: Callable[[str], None], verbose: bool, shown: bool) -> None:
    """Call `work` for each input, and show how far it is; report those that fail, and exit with 1 if any did."""
    failed = 0
    for name in tracked(inputs) if shown else inputs:
        try:
            work(name)
        except Exception as error:
            failed += 1
            fact = _fact(error, name)
            if not isinstance(error, (DLFError, OSError)):
                fact = f"unexpected {type(error).__name__}: {error}"
            tell(f"dlf: {name}: {fact.removeprefix(f'{name}: ')}")
            if verbose:
                tell(traceback.format_exc())
    if failed:
        raise typer.Exit(1)


def _fact(error: Exception, name: str) -> str:
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    other = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else name
    return error.strerror if other == name else f"{other}: {error.strerror}"


def _refuse_existing(target: str, overwrite: bool) -> None:
    """Refuse a target that cannot or must not be written, before the work is done."""
    if target == STDIO or not is_replaced(Path(target)):
        return
    folder = os.path.dirname(os.path.realpath(target))
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", folder)
    if not os.access(folder, os.W_OK):
        raise PermissionError(errno.EACCES, "the folder cannot be written to", folder)
    if os.path.isfile(target) and not overwrite:
        raise FileExistsError(None, f"{target} exists; use --overwrite, or -o for another place")


def _read(name: str) -> bytes:
    if name == STDIO:
        return read_stdin()
    with open(name, "rb") as file:
        head = file.read(1)  # of other files no more is read
        return head + file.read() if head == SIGNATURE else head


def _write(target: str, data: bytes) -> None:
    try:
        if target == STDIO:
            write_stdout(data)
        else:
            write_atomically(Path(target), data)
    except OSError as error:
        if target == STDIO:
            abandon_stdout()
        raise OSError(
            error.errno, f"cannot be written ({error.strerror})", "standard output" if target == STDIO else target
        ) from error


def _report(codec: Codec, name: str, target: str, coded: Coded, as_json: bool) -> None:
    height, width, _ = coded.pixels.shape
    size, bpp = len(coded.data), 8 * len(coded.data) / (height * width)
    load_seconds = codec.timings["load"]
    seconds = coded.seconds - load_seconds
    if as_json:
        line = {
            "input": name,
            "output": target,
            "width": width,
            "height": height,
            "bytes": size,
            "bpp": bpp,
            "seconds": seconds,
            "load_seconds": load_seconds,
            "backend": codec.backend.name,
            "preview": coded.preview,
            "quality": coded.quality,
        }
        with printing():
            print(json.dumps(line))
    else:
        loading = f" and {load_seconds:.2f} s to load the model" if load_seconds >= 0.005 else ""
        result = f"{target} (a preview)" if coded.preview else target
        quality = "" if coded.quality is None else f" at quality {coded.quality} of 0..{len(codec.qualities) - 1}"
        tell(
            f"{name} -> {result}: {width}x{height}, {size} bytes{quality}, {bpp:.4f} bpp, {seconds:.2f} s{loading}, "
            f"{codec.backend.name}"
        )
