"""Corpora for tests: folders of small pictures, jobs, codecs that are slow or that end their process, and what a job left.

Ray's workers import this module; `PYTHONPATH` names the folder of tests for them.
"""

import os
import time
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

import dlf
from dlf.runtime.corpus.job import Job, Operation
from dlf.runtime.corpus.plan import chunks
from dlf.runtime.corpus.report import Report
from dlf.runtime.corpus.rows import Row, from_shard
from dlf.runtime.corpus.storage import Storage
from dlf.runtime.corpus.worker import Worker

KILLER = 13  # the height of a picture that ends the process


class SlowCodec(dlf.Codec):
    """A codec that takes its time, and whose process ends at a picture of KILLER rows."""

    def __init__(self, bundle: Path, delay: float) -> None:
        super().__init__(bundle, "openvino", 1, device="cpu")
        self.delay = delay

    def encode_many(self, images, batch=4):  # type: ignore[no-untyped-def]
        pictures = list(images)
        time.sleep(self.delay * len(pictures))
        if any(len(picture) == KILLER for picture in pictures):
            os._exit(9)
        return super().encode_many(pictures, batch)


def make_pictures(folder: Path, count: int, seed: int = 0) -> Path:
    """Pictures in two folders, of two padded sizes."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        path = folder / ("odd" if index % 2 else "") / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (30, 40) if index % 3 else (300, 40)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return folder


def make_job(operation: Operation, source: Path | str, target: Path | str, bundle: Path, delay: float = 0, **options) -> Job:
    return Job(operation, Storage(str(source)), Storage(str(target)), partial(SlowCodec, bundle, delay), **options)


def do(job: Job) -> Report:
    """Do a job in this process."""
    worker, report = Worker(job), Report(job.operation)
    for chunk in chunks(job):
        report.add(worker.run(chunk))
    return report


def rows(target: Path) -> list[Row]:
    """All rows below a folder, of all shards."""
    return [row for shard in sorted(target.rglob("*.parquet")) for row in from_shard(shard.read_bytes())]


def tree(folder: Path, suffix: str = "") -> dict[str, bytes]:
    """The files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob(f"*{suffix}") if path.is_file()}
