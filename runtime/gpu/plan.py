"""Decisions of the GPU runtime that need no GPU: the batch size of arrays, the buffer for a size, when a graph is recorded."""

import re
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, Generic, Protocol, TypeVar

from dlf.runtime.errors import InvalidArgumentError
from dlf.runtime.gpu.engines import Size

B = TypeVar("B")

# A buffer is at least this large, and its address a multiple of this, as the driver allocates.
SMALLEST = 512
# Shapes of which graphs are kept, for each piece of work; each holds a few megabytes of the GPU's memory.
KEPT_SHAPES = 8

_DIMENSION = re.compile(r"(?:(\d+)\s*\*\s*)?([nhw])")


def batch_size(ports: Sequence[Mapping[str, Any]], shapes: Mapping[str, Sequence[int]]) -> Size:
    """Return how many images, and tiles down and across, a stage's inputs have.

    Args:
        ports: the inputs as the bundle's manifest has them, with shapes such as ["n", 3, "256*h", "256*w"].
        shapes: the shapes at hand, by input.

    Raises:
        InvalidArgumentError: an input is missing or unknown, or the shapes do not fit the manifest or each other.
    """
    names = [str(port["name"]) for port in ports]
    if sorted(names) != sorted(shapes):
        raise InvalidArgumentError(f"the stage takes {', '.join(names)}, not {', '.join(shapes)}.")
    found: dict[str, int] = {}
    for port in ports:
        shape = tuple(shapes[port["name"]])
        fits = len(shape) == len(port["shape"])
        for dimension, side in zip(port["shape"], shape, strict=False):
            match = _DIMENSION.fullmatch(str(dimension))
            if match is None:
                fits &= side == dimension
                continue
            value, rest = divmod(side, int(match[1] or 1))
            fits &= rest == 0 and value > 0 and found.setdefault(match[2], value) == value
        if not fits:
            expected = ", ".join(map(str, port["shape"]))
            sizes = ", ".join(f"{name} = {value}" for name, value in found.items())
            raise InvalidArgumentError(f"{port['name']} has the shape {shape}, not ({expected}) with {sizes or 'whole tiles'}.")
    if set(found) != {"n", "h", "w"}:
        raise InvalidArgumentError(f"the inputs {', '.join(names)} do not tell the batch's size.")
    return Size(found["n"], found["h"], found["w"])


def buffer_size(nbytes: int) -> int:
    """Return the size of the buffer for `nbytes`: one of eight sizes from a power of two to the next, so that they recur."""
    if nbytes <= SMALLEST:
        return SMALLEST
    step = 1 << max((nbytes - 1).bit_length() - 4, SMALLEST.bit_length() - 1)
    return -(-nbytes // step) * step


@dataclass(frozen=True)
class Buffer(Generic[B]):
    """A buffer of a pool.

    Attributes:
        size: in bytes.
        order: 0 for the pool's first buffer, and so on.
        memory: what the pool's `allocate` gave.
    """

    size: int
    order: int
    memory: B


class BufferPool(Generic[B]):
    """Buffers that are not in use, by size.

    `take` returns the oldest that fits, whatever the order in which they came back: work that takes the same sizes again gets the
    same addresses again, and its graphs stay valid.
    """

    def __init__(self, allocate: Callable[[int], B]) -> None:
        self._allocate = allocate
        self._made = 0
        self._free: dict[int, list[tuple[int, Buffer[B]]]] = {}  # heaps by order

    def take(self, nbytes: int) -> Buffer[B]:
        """Return a buffer of `buffer_size(nbytes)` bytes."""
        size = buffer_size(nbytes)
        if free := self._free.get(size):
            return heappop(free)[1]
        memory = self._allocate(size)
        self._made += 1
        return Buffer(size, self._made - 1, memory)

    def give(self, buffer: Buffer[B]) -> None:
        """Give back what `take` gave."""
        heappush(self._free.setdefault(buffer.size, []), (buffer.order, buffer))

    def clear(self) -> list[B]:
        """Forget the unused buffers, and return their memory."""
        unused = [buffer.memory for free in self._free.values() for _, buffer in free]
        self._free.clear()
        return unused


class Graph(Protocol):
    """Recorded work."""

    def launch(self, stream: int) -> None:
        """Put it on a stream."""

    def close(self) -> None:
        """Release it."""


@dataclass
class _Seen:
    addresses: tuple[int, ...]
    graph: Graph | None = None


class Replays:
    """Decides for each call whether work is done directly, recorded as a CUDA graph, or replayed from its graph.

    For each piece of work and shape: the first time, and whenever an address has changed since, it is done directly, because a
    library may set itself up then, which cannot be recorded. The second time it is recorded, and the graph is launched;
    from then on the graph is launched. The graphs of the last `KEPT_SHAPES` shapes of each piece of work are kept.
    """

    def __init__(self, stream: int, capture: Callable[[int, Callable[[], None]], Graph]) -> None:
        """`capture(stream, work)` records what `work` puts on the stream, without doing it."""
        self._stream = stream
        self._capture = capture
        self._seen: dict[str, OrderedDict[Hashable, _Seen]] = {}

    def run(
        self,
        name: str,
        shape: Hashable,
        addresses: Sequence[int],
        work: Callable[[], None],
        capturable: Callable[[], bool] = lambda: True,
    ) -> None:
        """Do `work`, which puts the same on the stream each time that name, shape and addresses are the same.

        `capturable` is asked before it is recorded; until it agrees, the work is done as it comes.
        """
        shapes = self._seen.setdefault(name, OrderedDict())
        seen = shapes.get(shape)
        if seen is None or seen.addresses != tuple(addresses):
            self.forget(name, shape)
            work()
            shapes[shape] = _Seen(tuple(addresses))
            while len(shapes) > KEPT_SHAPES:
                self.forget(name, next(iter(shapes)))
            return
        shapes.move_to_end(shape)
        if seen.graph is None:
            if not capturable():
                work()
                return
            seen.graph = self._capture(self._stream, work)
        seen.graph.launch(self._stream)

    def forget(self, name: str, shape: Hashable) -> None:
        """Release the graph of a piece of work and shape, if there is one."""
        seen = self._seen.get(name, OrderedDict()).pop(shape, None)
        if seen is not None and seen.graph is not None:
            seen.graph.close()

    def clear(self) -> None:
        """Release all graphs."""
        for name, shapes in self._seen.items():
            for shape in list(shapes):
                self.forget(name, shape)
