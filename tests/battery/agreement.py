"""Every writer's files decode to the same tokens and symbols in every reader.

Writers and readers are all of: instruction sets of this processor, bundles of each precision, backends on the CPU, Python and C.

    python -m battery.agreement FOLDER ISA write|read

does those of one instruction set, which a process chooses when it starts.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from shutil import copyfile, copytree

import numpy as np
from helpers.bundle import LoneStage, seal
from helpers.native import Backend, Context, Model

import dlf
from battery.pictures import picture
from battery.result import Result, scaled
from dlf.runtime.backends import Arrays
from dlf.runtime.backends.choice import open_backend
from dlf.runtime.formats import STAGES

ISAS = ("scalar", "avx2", "avx512", "neon")
PRECISIONS = ("fp32", "fp16", "int8")
BACKENDS = ("openvino", "onnxruntime")
IMAGES = 20


def run(scale: float, bundle: Path, folder: Path) -> Result:
    """Let each writer write 20 images, and each reader read them all."""
    result = Result()
    for precision in PRECISIONS:
        _convert(bundle, folder / precision, precision)
    (folder / "files").mkdir()
    (folder / "count").write_text(str(scaled(IMAGES, scale)))
    isas = [isa for isa in ISAS if _worker(folder, isa, "write") is not None]
    latents: dict[str, set[str]] = {}
    readers = 0
    for isa in isas:
        read = _worker(folder, isa, "read") or {}
        readers += len(read)
        for reader, hashes in read.items():
            for file, found in hashes.items():
                latents.setdefault(file, set()).add(found)
                if len(latents[file]) > 1:
                    result.wrong.append(f"{file}: {reader} on {isa} decodes it to other symbols than readers before")
    result.figures = {
        "instruction sets": ", ".join(isas),
        "writers": readers,
        "readers": readers,
        "files": len(latents),
        "files read": readers * len(latents),
        "mismatches": len(result.wrong),
    }
    return result


def _convert(source: Path, target: Path, precision: str) -> None:
    from dlf.export import fp16, int8

    copytree(source, target)
    if precision == "fp32":
        return
    images = [picture(seed) for seed in range(3)]
    converter = {"fp16": fp16, "int8": int8}[precision].prepare(source, images)
    for stage in STAGES:
        (target / f"{stage}.onnx.data").unlink(missing_ok=True)
        converter(source / f"{stage}.onnx", target / f"{stage}.onnx", ())
    copyfile(source / "entropy.bin", target / "entropy.bin")
    seal(target, precision=precision)


def _worker(folder: Path, isa: str, task: str) -> dict[str, dict[str, str]] | None:
    """What a worker prints; None if this processor lacks the instruction set."""
    command = [sys.executable, "-m", "battery.agreement", str(folder), isa, task]
    environment = os.environ | {"DLF_ISA": isa}
    worker = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[1])
    if worker.returncode == 0:
        found: dict[str, dict[str, str]] = json.loads(worker.stdout)
        return found
    if "cannot run what DLF_ISA asks for" in worker.stderr:
        return None
    raise RuntimeError(worker.stderr)


def codecs(folder: Path) -> Iterator[tuple[str, dlf.Codec | Context, list[str]]]:
    """The name of each codec of this process, the codec, and a list of hashes of the latents that it decodes."""
    for precision in PRECISIONS:
        for backend in BACKENDS:
            hashes: list[str] = []
            with dlf.Codec(folder / precision, backend, threads=1) as codec:
                (coder,) = codec._coders.values()
                coder._backend = Recording(codec.backend, hashes)
                yield f"Python, {backend}, {precision}", codec, hashes
            hashes = []
            library = Recording(open_backend(backend, 1), hashes)
            own = Backend(lambda stage, file, library=library: library.load(LoneStage(file), stage))
            yield f"C, {backend}, {precision}", Context(Model(folder / precision, backend=own.pointer())), hashes


class Recording:
    """A backend that notes a hash of what the synthesis is given."""

    def __init__(self, backend: dlf.runtime.backends.Backend, hashes: list[str]) -> None:
        self._backend, self._hashes = backend, hashes
        self.name, self.on_cpu, self.threads = backend.name, backend.on_cpu, backend.threads

    def load(self, bundle: object, stage: str) -> Callable[[Arrays], Arrays]:
        run = self._backend.load(bundle, stage)

        def recorded(inputs: Arrays) -> Arrays:
            if stage == "synthesis":
                latents = (np.ascontiguousarray(inputs[name]).tobytes() for name in ("z_hat", "y_hat"))
                self._hashes.append(sha256(b"".join(latents)).hexdigest())
            return run(inputs)

        return recorded


def write(folder: Path, isa: str) -> dict[str, dict[str, str]]:
    """Write files by all codecs."""
    for name, codec, _ in codecs(folder):
        for seed in range(int((folder / "count").read_text())):
            (folder / "files" / f"{isa}, {name}, {seed}.dlf").write_bytes(codec.encode(picture(seed)))
    return {}


def read(folder: Path) -> dict[str, dict[str, str]]:
    """A hash of each file's latents, by reader and file."""
    files = sorted((folder / "files").iterdir())
    found: dict[str, dict[str, str]] = {}
    for name, codec, hashes in codecs(folder):
        for file in files:
            codec.decode(file.read_bytes())
        found[name] = dict(zip((file.stem for file in files), hashes, strict=True))
    return found


if __name__ == "__main__":
    place, isa, task = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    dlf.Codec(place / "fp32")  # refuses an instruction set that is not there
    print(json.dumps(write(place, isa) if task == "write" else read(place)))
