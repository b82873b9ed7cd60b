"""`make demo`: a photograph through the codec and back, with a picture of both side by side.

Without a model at hand it exports the synthetic mini checkpoint, whose weights are random: everything works, and the
decoded picture is noise.
"""

import logging
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

import dlf

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "demo"


def synthetic_bundle() -> Path:
    """Export the synthetic mini checkpoint, once."""
    bundle, checkpoint = FOLDER / "bundle", FOLDER / "mini.ckpt"
    if not bundle.exists():
        print("exporting the synthetic mini checkpoint (random weights); this takes some minutes, once", flush=True)
        make = ROOT / "tests" / "reference" / "synthetic_checkpoint.py"
        subprocess.run([sys.executable, make, "--config", "mini", "--seed", "7", "--out", checkpoint], check=True)
        subprocess.run(
            [Path(sys.executable).with_name("dlf-export"), checkpoint, "-o", bundle, "--name", "synthetic mini"], check=True
        )
        checkpoint.unlink()
    return bundle


def main() -> None:
    """Encode, decode, and show."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("dlf").setLevel(logging.INFO)
    FOLDER.mkdir(exist_ok=True)
    image = np.asarray(Image.open(sys.argv[1]).convert("RGB")) if len(sys.argv) > 1 else load_sample_image("china.jpg")
    with dlf.Codec(synthetic_bundle()) as codec:
        start = perf_counter()
        data = codec.encode(image)
        encoded = perf_counter()
        decoded = codec.decode(data)
        done = perf_counter()
    (FOLDER / "photo.dlf").write_bytes(data)
    Image.fromarray(np.concatenate([image, decoded], 1)).save(FOLDER / "side-by-side.png")

    about = dlf.info(data)
    print(f"{about.width}x{about.height} pixels in {about.bytes.total} bytes, {about.bpp:.4f} bits per pixel")
    print(f"encoded in {encoded - start:.2f} s, decoded in {done - encoded:.2f} s (loading included), on {codec.backend.name}")
    print(f"{FOLDER.name}/photo.dlf and {FOLDER.name}/side-by-side.png (original left) are written")
    print("the weights are synthetic, so the decoded picture is noise")


if __name__ == "__main__":
    main()
