"""The rate that a user asks for: which of the models of a folder encode an image, and whose file is taken."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TypeVar

from dlf.runtime.errors import InvalidArgumentError

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rate:
    """What is asked for: at most one of the three; without any, the highest quality.

    Attributes:
        quality: which model: 0 is the one of the lowest rate.
        target_bytes: bytes that a file is to have at most. The model is taken that makes the largest such file; if all files are
            larger, the one that makes the smallest, with a warning in the log.
        target_bpp: the same in bits of the file per pixel of the image.

    Raises:
        InvalidArgumentError: several are given, or one is out of its range.
    """

    quality: int | None = None
    target_bytes: int | None = None
    target_bpp: float | None = None

    def __post_init__(self) -> None:
        given = [name for name, value in vars(self).items() if value is not None]
        if len(given) > 1:
            raise InvalidArgumentError(f"{' and '.join(given)} exclude each other; give one of them.")
        for name, value, kind, least in (
            ("quality", self.quality, Integral, 0),
            ("target_bytes", self.target_bytes, Integral, 1),
            ("target_bpp", self.target_bpp, Real, math.ulp(0.0)),
        ):
            if value is not None and not (isinstance(value, kind) and value >= least):  # NaN is none of these
                what = "above 0" if kind is Real else f"a whole number, at least {least}"
                raise InvalidArgumentError(f"{name} is {value!r}; it must be {what}.")

    def among(self, models: Sequence[T]) -> Sequence[T]:
        """Those of `models`, the lowest rate first, that have to encode an image.

        Raises:
            InvalidArgumentError: there is no model of this quality.
        """
        if self.quality is not None:
            if self.quality >= len(models):
                there = "0 alone" if len(models) == 1 else f"0 to {len(models) - 1}"
                raise InvalidArgumentError(f"quality is {self.quality}, and the model has {there}; name a folder of more models.")
            return models[self.quality : self.quality + 1]
        return models[-1:] if self.target_bytes is None and self.target_bpp is None else models

    def best(self, files: Sequence[bytes], height: int, width: int) -> bytes:
        """Of one image's files, one by each model of `among`, the one to take."""
        if self.target_bytes is None and self.target_bpp is None:
            return files[0]
        most = self.target_bytes if self.target_bpp is None else self.target_bpp * height * width / 8
        assert most is not None
        if fitting := [file for file in files if len(file) <= most]:
            return max(fitting, key=len)
        smallest = min(files, key=len)
        _log.warning("No model here makes a file of at most %d bytes of this image; the smallest has %d.", most, len(smallest))
        return smallest
