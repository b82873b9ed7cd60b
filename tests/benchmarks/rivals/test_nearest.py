from hypothesis import given
from hypothesis import strategies as st

from dlf.benchmarks import rivals


@given(st.lists(st.integers(1, 300), min_size=1, max_size=101), st.integers(0, 400))
def test_nearest_is_what_trying_every_quality_finds(sizes, wanted):
    sizes.sort()
    index, data = rivals.nearest(lambda index: bytes(sizes[index]), len(sizes), wanted)
    assert len(data) == sizes[index]
    assert abs(sizes[index] - wanted) == min(abs(size - wanted) for size in sizes)


def test_nearest_tries_few_qualities():
    tried = []
    rivals.nearest(lambda index: tried.append(index) or bytes(index + 1), 101, 50)
    assert len(tried) <= 8
