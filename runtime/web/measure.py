"""Measures the codec in headless Chromium against the native one, in one run: `make web`, then python -m dlf.runtime.web.measure.

The photograph is scikit-learn's china.jpg, scaled to 768x512. Rounds in Chromium and native ones take turns, so that other work
on the machine falls on both; the figures are the medians of all, and the fastest.
"""

import argparse
import base64
import gzip
import os
import time
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from dlf.runtime import libdlf
from dlf.runtime.codec import Codec
from dlf.runtime.libdlf import EntropyModel
from dlf.runtime.web import chromium

THREADS = 2
WIDTH, HEIGHT = 768, 512
ENTROPY, DECODES = 100, 5  # repeats in a round
SCRIPT = f"""
const {{Core}} = await import(new URL("dlf/core.js", location.href));
const core = new Core(await WebAssembly.compileStreaming(fetch("dlf/core.wasm")), files.entropy);
const codec = await dlf.Dlf.open("model/", {{threads: {THREADS}}});
const timed = async (count, work) => {{
    await work();
    const times = [];
    for (let i = 0; i < count; ++i) {{
        const start = performance.now();
        await work();
        times.push((performance.now() - start) / 1000);
    }}
    return times;
}};
const header = core.info(files.file);
return {{entropy: await timed({ENTROPY}, async () => core.decode(files.file, header)),
         decode: await timed({DECODES}, () => codec.decode(files.file)),
         image: b64((await codec.decode(files.file)).data), threads: codec.model.threads}};"""


def timed(count: int, work: Callable[[], object]) -> list[float]:
    """Seconds of each call, after one that is not counted."""
    work()
    times = []
    for _ in range(count):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=chromium.ROOT / "build" / "web")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if missing := chromium.missing(options.folder):
        parser.error(missing)
    model = options.folder / "model"
    codec = Codec(model, backend="onnxruntime", threads=THREADS)
    file = codec.encode(np.asarray(Image.fromarray(load_sample_image("china.jpg")).resize((WIDTH, HEIGHT))))
    entropy_bin = (model / "entropy.bin").read_bytes()
    entropy = EntropyModel(entropy_bin)
    info = libdlf.parse_file(file, libdlf.Limits())
    detail = file[info.header_bytes + info.token_bytes :][: info.detail_bytes]
    native: dict[str, list[float]] = defaultdict(list)
    web: dict[str, list[float]] = defaultdict(list)
    with chromium.serving(options.folder) as page:
        for _ in range(options.rounds):
            found = page.run(SCRIPT, {"entropy": entropy_bin, "file": file}, timeout=600)
            for what in ("entropy", "decode"):
                web[what] += found[what]
            native["entropy"] += timed(ENTROPY, lambda: entropy.decode_detail(detail, HEIGHT // 32, WIDTH // 32))
            native["decode"] += timed(DECODES, lambda: codec.decode(file))
    wasm = (options.folder / "dlf" / "core.wasm").read_bytes()
    image = np.frombuffer(base64.b64decode(found["image"]), np.uint8).reshape(HEIGHT, WIDTH, 4)[..., :3]
    difference = np.abs(image.astype(int) - codec.decode(file)).mean()
    print(f"native: libdlf in {entropy.isa}, ONNX Runtime {version('onnxruntime')}; {len(os.sched_getaffinity(0))} cores")
    print(f"core.wasm: {len(wasm)} bytes, {len(gzip.compress(wasm, 9))} with gzip")
    print(f"model: {sum(path.stat().st_size for path in model.iterdir())} bytes")
    print(f"mean difference of the pictures: {difference:.3f} levels")
    for what, threads in (("entropy", 1), ("decode", found["threads"])):
        for name, of in (("median", median), ("fastest", min)):
            ours, theirs = of(web[what]), of(native[what])
            print(f"{what}, {threads} threads, {name}: Chromium {ours:.4f} s, native {theirs:.4f} s, {ours / theirs:.2f} times")


if __name__ == "__main__":
    main()
