from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlf.runtime.errors import InvalidArgumentError
from dlf.runtime.gpu.engines import Size
from dlf.runtime.gpu.plan import KEPT_SHAPES, SMALLEST, BufferPool, Replays, batch_size, buffer_size

Z = {"name": "z_hat", "shape": ["n", "h", "w", 12, 32]}
Y = {"name": "y_hat", "shape": ["n", 64, "8*h", "8*w"]}


@given(st.tuples(*[st.integers(1, 64)] * 3))
@settings(deadline=None)
def test_the_batchs_size_is_read_off_the_shapes(size):
    n, h, w = size
    assert batch_size([Z, Y], {"z_hat": (n, h, w, 12, 32), "y_hat": (n, 64, 8 * h, 8 * w)}) == Size(n, h, w)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"z_hat": (1, 2, 3, 12, 32)}, "takes z_hat, y_hat, not z_hat"),
        ({"z_hat": (1, 2, 3, 12, 32), "y": (1, 64, 16, 24)}, "takes z_hat, y_hat, not z_hat, y"),
        ({"z_hat": (1, 2, 3, 12), "y_hat": (1, 64, 16, 24)}, "z_hat has the shape"),
        ({"z_hat": (1, 2, 3, 12, 31), "y_hat": (1, 64, 16, 24)}, "z_hat has the shape"),
        ({"z_hat": (1, 2, 3, 12, 32), "y_hat": (1, 64, 17, 24)}, "y_hat has the shape"),
        ({"z_hat": (1, 2, 3, 12, 32), "y_hat": (2, 64, 16, 24)}, r"y_hat has the shape .* with n = 1, h = 2, w = 3"),
        ({"z_hat": (0, 2, 3, 12, 32), "y_hat": (0, 64, 16, 24)}, "z_hat has the shape"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes, message):
    with pytest.raises(InvalidArgumentError, match=message):
        batch_size([Z, Y], shapes)


def test_a_stage_whose_inputs_do_not_tell_the_size_is_refused():
    with pytest.raises(InvalidArgumentError, match="do not tell"):
        batch_size([{"name": "x", "shape": ["n", 3]}], {"x": (1, 3)})


@given(st.integers(0, 1 << 40))
@settings(deadline=None)
def test_a_buffer_is_at_most_an_eighth_too_large(nbytes):
    size = buffer_size(nbytes)
    assert size >= nbytes
    assert size % SMALLEST == 0
    assert size <= max(nbytes + nbytes // 8 + 1, nbytes + SMALLEST)
    assert buffer_size(size) == size


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 20))
@settings(deadline=None)
def test_a_larger_wish_gets_no_smaller_buffer(nbytes, more):
    assert buffer_size(nbytes + more) >= buffer_size(nbytes)


@given(st.lists(st.integers(1, 3000), max_size=12), st.randoms())
@settings(deadline=None)
def test_the_same_wishes_get_the_same_buffers_in_whatever_order_they_came_back(wishes, random):
    pool = BufferPool(allocate=lambda nbytes: object())
    first = [pool.take(nbytes) for nbytes in wishes]
    assert len({id(buffer.memory) for buffer in first}) == len(wishes)  # none is given out twice
    assert all(buffer.size >= nbytes for buffer, nbytes in zip(first, wishes, strict=True))
    for buffer in random.sample(first, len(first)):
        pool.give(buffer)
    assert [pool.take(nbytes).memory for nbytes in wishes] == [buffer.memory for buffer in first]


def test_a_pool_allocates_what_it_has_not_and_forgets_when_cleared():
    sizes = []
    pool = BufferPool(allocate=lambda nbytes: sizes.append(nbytes) or len(sizes))
    one, other = pool.take(1000), pool.take(1000)
    pool.give(other)
    assert pool.take(900) is other
    pool.give(one)
    pool.give(other)
    assert sorted(pool.clear()) == [1, 2]
    assert pool.clear() == []
    assert pool.take(1000).memory == 3
    assert sizes == [1024] * 3


class Recorder:
    """Replays of work that notes what happens."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.replays = Replays(7, self.capture)
        self.can = True

    def capture(self, stream, work):
        assert stream == 7
        self.events.append("capture")
        number = self.events.count("capture")
        return SimpleNamespace(
            launch=lambda stream: self.events.append(f"launch {number}"), close=lambda: self.events.append(f"close {number}")
        )

    def run(self, shape, addresses, name="stage"):
        before = len(self.events)
        self.replays.run(name, shape, addresses, lambda: self.events.append("work"), lambda: self.can)
        return self.events[before:]


def test_work_is_done_then_recorded_then_replayed():
    recorder = Recorder()
    assert recorder.run("a", [1, 2]) == ["work"]
    assert recorder.run("a", [1, 2]) == ["capture", "launch 1"]
    assert recorder.run("a", [1, 2]) == ["launch 1"]
    assert recorder.run("b", [1, 2]) == ["work"]  # another shape
    assert recorder.run("a", [1, 2], name="other") == ["work"]  # other work
    assert recorder.run("a", [1, 2]) == ["launch 1"]


def test_an_address_that_changes_releases_the_graph():
    recorder = Recorder()
    for _ in range(3):
        recorder.run("a", [1, 2])
    assert recorder.run("a", [1, 3]) == ["close 1", "work"]
    assert recorder.run("a", [1, 3]) == ["capture", "launch 2"]
    assert recorder.run("a", [1, 2]) == ["close 2", "work"]
    assert recorder.run("a", [2, 1]) == ["work"]  # nothing to release


def test_what_cannot_be_recorded_yet_is_done():
    recorder = Recorder()
    recorder.can = False
    assert [recorder.run("a", [1]) for _ in range(3)] == [["work"]] * 3
    recorder.can = True
    assert recorder.run("a", [1]) == ["capture", "launch 1"]


def test_the_shapes_used_last_are_kept():
    recorder = Recorder()
    for shape in range(KEPT_SHAPES):
        recorder.run(shape, [1])
        recorder.run(shape, [1])
    recorder.run(0, [1])
    assert recorder.run("new", [1]) == ["work", "close 2"]  # shape 1's, as shape 0 has been used since
    assert recorder.run(0, [1]) == ["launch 1"]
    assert recorder.run(1, [1]) == ["work", "close 3"]


def test_clearing_releases_every_graph():
    recorder = Recorder()
    for shape in "ab":
        recorder.run(shape, [1])
        recorder.run(shape, [1])
    recorder.events.append("clear")
    recorder.replays.clear()
    assert sorted(recorder.events[-2:]) == ["close 1", "close 2"]
    assert recorder.run("a", [1]) == ["work"]


shapes = st.integers(0, 2)
addresses = st.lists(st.integers(0, 1), min_size=2, max_size=2)


@given(st.lists(st.tuples(shapes, addresses), max_size=40))
@settings(deadline=None)
def test_what_is_launched_was_recorded_with_the_same_addresses(runs):
    done = []
    current = None

    def capture(stream, work):
        recorded = current
        return SimpleNamespace(launch=lambda stream: done.append(recorded), close=lambda: None)

    replays = Replays(0, capture)
    for shape, where in runs:
        current = (shape, where)
        replays.run("stage", shape, where, lambda: done.append(current))  # noqa: B023
    assert done == list(runs)  # each once, and on its own addresses
