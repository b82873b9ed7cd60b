"""What a job has done, in numbers."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from time import perf_counter

from dlf.runtime.corpus.worker import Done

_ERRORS = 1000  # that a report has in words; rows have all of them


@dataclass
class Report:
    """Counts of a job, and its errors.

    Attributes:
        done: images that were worked on, without an error; `skipped`: those that were done before; `failed`: those with an error.
        ignored: files of the source that are no images (of decode: no `.dlf` files).
        pixels, source_bytes, result_bytes: of those that were done now.
        work_seconds: of all workers, in the codec and in reading pictures.
        workers_lost: processes that ended before the job did; their work was done again.
        errors: of the first 1000 that failed, path -> class and message.
    """

    operation: str
    done: int = 0
    skipped: int = 0
    failed: int = 0
    ignored: int = 0
    pixels: int = 0
    source_bytes: int = 0
    result_bytes: int = 0
    work_seconds: float = 0.0
    workers: int = 0
    workers_lost: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=perf_counter)

    @property
    def seen(self) -> int:
        """Images of which the outcome is known."""
        return self.done + self.skipped + self.failed

    def add(self, found: Iterable[Done]) -> None:
        """Count a chunk."""
        for each in found:
            row = each.row
            if row.error:
                self.failed += 1
                if len(self.errors) < _ERRORS:
                    self.errors[row.path] = row.error
            elif not each.now:
                self.skipped += 1
            else:
                self.done += 1
                self.pixels += row.width * row.height
                self.source_bytes += row.source_size
                self.result_bytes += row.size
                self.work_seconds += row.seconds

    def to_dict(self) -> dict[str, object]:
        """The report, for JSON."""
        seconds = perf_counter() - self.started
        values = asdict(self)
        del values["started"]
        return {
            **values,
            "seconds": seconds,
            "images_per_second": self.done / seconds,
            "bpp": 8 * self.result_bytes / self.pixels if self.pixels else None,
        }
