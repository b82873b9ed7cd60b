"""What a run of dlf-bench finds out, as plain records; `to_json` and `from_json` carry them to a file and back."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from statistics import mean
from typing import Any

OURS = "dlf"  # the codec under test, among the codecs of an image
DIRECTIONS = ("encode", "decode")


@dataclass(frozen=True)
class Coding:
    """One codec on one image."""

    codec: str
    bytes: int
    bpp: float
    quality: dict[str, float]  # by metric
    setting: str = ""  # what the encoder was asked for
    at_minimum: bool = False  # the encoder cannot make a smaller file, and this one is larger than ours


@dataclass(frozen=True)
class ImageResult:
    """One image through the codec under test (the first of `codings`) and its rivals."""

    image: str
    sha256: str
    width: int
    height: int
    parts: dict[str, int]  # bytes of the .dlf file's header, tokens, detail and checksum
    padding_waste: float  # the share of the coded area that lies outside the image
    codings: list[Coding]
    curves: list[Coding] = field(default_factory=list)  # the rivals at fixed qualities, where BD-rates are wanted

    @staticmethod
    def from_json(values: dict[str, Any]) -> "ImageResult":
        """The record of what `dataclasses.asdict` gave."""
        codings = {name: [Coding(**coding) for coding in values[name]] for name in ("codings", "curves")}
        return ImageResult(**{**values, **codings})


@dataclass(frozen=True)
class Failure:
    """An image that could not be measured."""

    image: str
    error: str


@dataclass(frozen=True)
class Timing:
    """Repeats of one peer in one direction, files to files, in a process of its own; seconds of the whole batch."""

    peer: str
    direction: str  # of DIRECTIONS
    batch: int  # images at once
    cold: float  # from the start of the process to the first batch written
    warm: list[float]  # of each later repeat
    steps: dict[str, list[float]]  # step -> seconds of each of those repeats
    peak_bytes: int | None  # of the process's memory; not measured of a command
    versions: dict[str, str]
    process_each: bool = False  # the peer is a command: each repeat is a new process

    @property
    def p50(self) -> float:
        """The median of the warm repeats, seconds."""
        return percentile(self.warm, 50)

    @property
    def p95(self) -> float:
        """Their 95th percentile, seconds."""
        return percentile(self.warm, 95)

    @property
    def images_per_second(self) -> float:
        """Throughput, by the median."""
        return self.batch / self.p50


@dataclass(frozen=True)
class Speed:
    """All that was timed of one model on one image, alone and in batches; the model's own backend is the first peer."""

    image: str
    width: int
    height: int
    threads: int | None
    timings: list[Timing]

    def ratio(self, baseline: Timing) -> float:
        """How many times faster the first peer is than another's timing, by the medians of warm repeats.

        A command starts a process each time: its median is compared with a cold start."""
        what = (self.peers[0], baseline.direction, baseline.batch)
        ours = next(t for t in self.timings if (t.peer, t.direction, t.batch) == what)
        return baseline.p50 / (ours.cold if baseline.process_each else ours.p50)

    def megapixels_per_second(self, timing: Timing) -> float:
        """Throughput in pixels of the image, not of the padded area."""
        return timing.images_per_second * self.width * self.height / 1e6

    @property
    def alone(self) -> list[Timing]:
        """The timings of one image at a time."""
        return [timing for timing in self.timings if timing.batch == 1]

    @property
    def peers(self) -> list[str]:
        """The peers in their order, the model's own backend first."""
        return list(dict.fromkeys(timing.peer for timing in self.timings))

    @property
    def baselines(self) -> list[str]:
        """The other peers."""
        return self.peers[1:]


@dataclass(frozen=True)
class ModelResult:
    """One bundle on all images."""

    model: str  # distinct in a report
    bundle: str  # the folder, as it was given
    fingerprint: str
    manifest_sha256: str  # which vouches for every file of the bundle
    backend: str
    device: str
    precision: str
    versions: dict[str, str]
    images: list[ImageResult]
    failures: list[Failure]
    speed: Speed | None = None

    def codecs(self) -> list[str]:
        """The codecs measured, `OURS` first."""
        return list(dict.fromkeys(coding.codec for image in self.images for coding in image.codings))

    @property
    def at_minimum(self) -> set[str]:
        """The codecs that cannot make a file as small as ours of some image."""
        return {coding.codec for image in self.images for coding in image.codings if coding.at_minimum}

    def means(self, codec: str) -> dict[str, float]:
        """The mean over the images of bytes, bpp and every metric of a codec."""
        return _means(coding for image in self.images for coding in image.codings if coding.codec == codec)

    def curves(self) -> dict[str, list[dict[str, float]]]:
        """Rival -> such means at each of the qualities of its curve."""
        points: dict[str, dict[str, list[Coding]]] = {}
        for coding in (coding for image in self.images for coding in image.curves):
            points.setdefault(coding.codec, {}).setdefault(coding.setting, []).append(coding)
        return {codec: [_means(codings) for codings in by_setting.values()] for codec, by_setting in points.items()}


@dataclass(frozen=True)
class Gate:
    """A bound from the command line, and what was found."""

    name: str
    bound: float
    found: float
    passed: bool


@dataclass(frozen=True)
class BDRate:
    """The bit rate that `test` needs over that of `anchor` at equal quality, %; negative where it needs less.

    None where that is not defined: quality does not rise with the rate, or the curves share no quality.
    """

    metric: str
    test: str
    anchor: str
    percent: float | None

    def __str__(self) -> str:
        return "not defined (falling curves, or no shared quality)" if self.percent is None else f"{self.percent:+.2f} %"


@dataclass(frozen=True)
class Report:
    """Everything of one run."""

    created: str  # ISO 8601, UTC
    command: str
    dataset: str
    metrics: list[str]
    machine: dict[str, str]
    models: list[ModelResult]
    bd_rates: list[BDRate] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    published: dict[str, Any] = field(default_factory=dict)  # of others; see anchors.json

    def to_json(self) -> dict[str, Any]:
        """The report as plain values, with the means of every model; numbers that are not finite become null."""
        values = asdict(self)
        for model, found in zip(values["models"], self.models, strict=True):
            model["means"] = {codec: found.means(codec) for codec in found.codecs()}
        return {"format": "dlf-bench", "format_version": 1, **_finite(values)}


def percentile(values: list[float], percent: float) -> float:
    """The percentile of a few values, linear between neighbours (NumPy's default)."""
    position = (len(values) - 1) * percent / 100
    ordered, below = sorted(values), int(position)
    above = min(below + 1, len(values) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def _means(codings: Iterable[Coding]) -> dict[str, float]:
    rows = [{"bytes": coding.bytes, "bpp": coding.bpp, **coding.quality} for coding in codings]
    return {key: mean(row[key] for row in rows) for key in rows[0]}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
