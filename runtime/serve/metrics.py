"""What the service counts, for Prometheus."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of one service."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("dlf_requests", "Requests answered.", ["path", "status"], registry=registry)
        self.request_seconds = Histogram(
            "dlf_request_seconds",
            "From the headers of a request to its answer.",
            ["path"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.received = Counter("dlf_received_bytes", "Bytes of bodies received.", ["path"], registry=registry)
        self.sent = Counter("dlf_sent_bytes", "Bytes of bodies sent.", ["path"], registry=registry)
        self.inside = Gauge("dlf_images_inside", "Images that wait or are worked on.", registry=registry)
        self.workers_lost = Counter("dlf_workers_lost", "Batches whose worker ended.", registry=registry)
        self._batch = Histogram("dlf_batch_images", "Images of a batch.", ["operation"], buckets=_IMAGES, registry=registry)
        self._stage = Histogram(
            "dlf_stage_seconds",
            "Seconds of a batch in each stage of the codec; of an image in wait.",
            ["operation", "stage"],
            buckets=_SECONDS,
            registry=registry,
        )

    def batch_done(self, operation: str, waited: Sequence[float], seconds: dict[str, float]) -> None:
        """Count a batch: the seconds that each image waited, and those that each step took."""
        self._batch.labels(operation).observe(len(waited))
        for each in waited:
            self._stage.labels(operation, "wait").observe(each)
        for stage, taken in seconds.items():
            self._stage.labels(operation, stage).observe(taken)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._registry)
