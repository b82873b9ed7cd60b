"""A photograph through the codec and back, both side by side as one picture: what `dlf demo` shows.

photograph.jpg is by danielbuechele, under CC BY 2.0; see NOTICE.
"""

from pathlib import Path

import numpy as np

from dlf.runtime.codec import Codec
from dlf.runtime.files import write_atomically
from dlf.runtime.images import encode_as, load

PHOTOGRAPH = Path(__file__).parent / "photograph.jpg"


def run(codec: Codec, photograph: Path, folder: Path) -> tuple[Path, Path]:
    """Write photo.dlf and side-by-side.png, the original on the left, to a folder, which is made; return both.

    Raises OSError, and what `Codec.encode` and `Codec.decode` raise.
    """
    original = load(photograph)
    data = codec.encode(original)
    decoded = codec.decode(data)
    folder.mkdir(parents=True, exist_ok=True)
    file, picture = folder / "photo.dlf", folder / "side-by-side.png"
    write_atomically(file, data)
    write_atomically(picture, encode_as(np.concatenate([original, decoded], axis=1), ".png"))
    return file, picture
