"""Find how many of some items, the first of them first, are enough, in few trials."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def fewest(items: Sequence[T], enough: Callable[[Sequence[T]], bool]) -> Sequence[T]:
    """The shortest beginning of `items`, of one item at least, that is enough; without a trial all, if no shorter one is.

    By bisection, since what is enough stays so with more: after at most `trials(len(items))` calls of `enough`.
    """
    return items[: 1 + bisect_left(range(1, len(items)), True, key=lambda count: enough(items[:count]))]


def trials(count: int) -> int:
    """How many times `fewest` tries at most, of so many items: the logarithm to base 2, rounded up."""
    return (count - 1).bit_length()
