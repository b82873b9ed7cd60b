"""The search for the fewest items: what it returns is enough, none fewer are, and it tries few."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from dlf.export.fewest import fewest, trials


@given(st.integers(1, 300), st.data())
def test_no_shorter_beginning_would_do(count: int, data: st.DataObject) -> None:
    needed = data.draw(st.integers(1, count))
    tried: list[int] = []

    def enough(chosen: Sequence[int]) -> bool:
        assert list(chosen) == list(range(len(chosen)))
        tried.append(len(chosen))
        return len(chosen) >= needed

    assert len(fewest(range(count), enough)) == needed
    assert len(tried) <= trials(count)
    assert 2 ** trials(count) < 2 * count or count == 1
    assert len(set(tried)) == len(tried)


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_where_more_may_be_worse_what_is_returned_is_enough_or_all(answers: list[bool]) -> None:
    found = fewest(answers, lambda chosen: answers[len(chosen) - 1])
    assert answers[len(found) - 1] or len(found) == len(answers)
