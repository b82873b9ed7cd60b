"""`make demo`: encode and decode a photograph with the built-in model, and write both side by side as one picture."""

import argparse
from pathlib import Path
from time import perf_counter

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

import dlf
from dlf.runtime.images import load

FOLDER = Path(__file__).parents[1] / "demo"


def main() -> None:
    """Encode, decode, and show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", nargs="?", help="a photograph; by default one that scikit-learn ships")
    path = parser.parse_args().image
    image = load(path, dlf.Limits()) if path else load_sample_image("china.jpg")
    with dlf.Codec() as codec:
        start = perf_counter()
        data = codec.encode(image)
        encoded = perf_counter()
        decoded = codec.decode(data)
        done = perf_counter()
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "photo.dlf").write_bytes(data)
    Image.fromarray(np.concatenate([image, decoded], 1)).save(FOLDER / "side-by-side.png")

    about = dlf.info(data)
    print(f"{about.width}x{about.height} pixels in {about.bytes.total} bytes, {about.bpp:.4f} bits per pixel")
    print(f"encoded in {encoded - start:.2f} s, decoded in {done - encoded:.2f} s (loading included), on {codec.backend.name}")
    print(f"wrote {FOLDER.name}/photo.dlf and {FOLDER.name}/side-by-side.png (the original is on the left)")


if __name__ == "__main__":
    main()
