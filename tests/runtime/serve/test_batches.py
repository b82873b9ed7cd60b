"""What waits, in batches: whose turn it is, and what a lost worker costs."""

import asyncio

import pytest

from dlf.runtime.serve.batches import Batches, FullError
from dlf.runtime.serve.metrics import Metrics
from dlf.runtime.serve.worker import Failed, Order

ENCODE, DECODE = Order("encode"), Order("decode")


class Workers:
    """Give each body back; they begin when they are let, and end at the body b"end"."""

    def __init__(self):
        self.seen, self.let = [], asyncio.Event()

    async def run(self, order, bodies):
        self.seen.append((order.operation, bodies))
        await self.let.wait()
        if b"end" in bodies:
            raise RuntimeError("the process ended\nand more")
        return list(bodies), {"analysis": 1.0}


def asked(batches, *wanted):
    return [asyncio.create_task(batches.code(order, size, body)) for order, size, body in wanted]


def make(of, **options):
    return Batches(of.run, **{"workers": 1, "batch": 2, "pixels": 1e9, "queue": 9, "metrics": Metrics()} | options)


def test_groups_take_turns():
    async def scenario():
        workers = Workers()
        batches = make(workers)
        small = [(ENCODE, (1, 1), bytes([n])) for n in range(5)]
        calls = asked(batches, *small, (ENCODE, (2, 1), b"x"), (DECODE, (1, 1), b"y"))
        await asyncio.sleep(0)
        workers.let.set()
        assert await asyncio.gather(*calls) == [b"\0", b"\1", b"\2", b"\3", b"\4", b"x", b"y"]
        return workers.seen

    assert asyncio.run(scenario()) == [
        ("encode", [b"\0"]),  # nothing is waited for
        ("encode", [b"\1", b"\2"]),
        ("encode", [b"x"]),
        ("decode", [b"y"]),
        ("encode", [b"\3", b"\4"]),
    ]


def test_a_batch_has_no_more_pixels_than_may_be():
    async def scenario():
        workers = Workers()
        batches = make(workers, batch=9, pixels=4 * 256**2)
        large = [(ENCODE, (3, 1), b"a"), (ENCODE, (3, 1), b"b"), (ENCODE, (3, 2), b"c")]
        calls = asked(
            batches, (DECODE, (1, 1), b"0"), *[(ENCODE, (1, 2), bytes([n])) for n in range(3)], *large, (ENCODE, None, b"d")
        )
        workers.let.set()
        await asyncio.gather(*calls)
        return sorted(len(bodies) for _, bodies in workers.seen)

    assert asyncio.run(scenario()) == [1, 1, 1, 1, 1, 1, 2]


def test_all_workers_are_used():
    async def scenario():
        workers = Workers()
        batches = make(workers, workers=3)
        calls = asked(batches, *[(ENCODE, (1, 1), bytes([n])) for n in range(3)])
        while len(workers.seen) < 3:
            await asyncio.sleep(0)
        workers.let.set()
        await asyncio.gather(*calls)

    asyncio.run(scenario())


def test_a_full_queue_refuses_and_has_room_again():
    async def scenario():
        workers = Workers()
        batches = make(workers, queue=2)
        calls = asked(batches, (ENCODE, (1, 1), b"a"), (ENCODE, (1, 1), b"b"))
        await asyncio.sleep(0)
        with pytest.raises(FullError) as refused:
            await batches.code(ENCODE, (1, 1), b"c")
        assert refused.value.retry_after == 1
        workers.let.set()
        await asyncio.gather(*calls)
        assert await batches.code(ENCODE, (1, 1), b"c") == b"c"

    asyncio.run(scenario())


def test_a_lost_worker_costs_the_body_that_ends_it_alone():
    async def scenario():
        workers = Workers()
        batches = make(workers, batch=3)
        calls = asked(batches, (DECODE, (1, 1), b"0"), (ENCODE, (1, 1), b"a"), (ENCODE, (1, 1), b"end"), (ENCODE, (1, 1), b"b"))
        workers.let.set()
        found = await asyncio.gather(*calls)
        assert found[:2] == [b"0", b"a"] and found[3] == b"b"
        assert isinstance(found[2], Failed) and (found[2].name, found[2].by_request) == ("WorkerLost", False)
        assert workers.seen[2:] == [("encode", [body]) for body in (b"a", b"end", b"end", b"b")]

    asyncio.run(scenario())


def test_a_client_that_leaves_costs_no_other():
    async def scenario():
        workers = Workers()
        batches = make(workers, batch=3)
        first, gone, last = asked(batches, (ENCODE, (1, 1), b"a"), (ENCODE, (1, 1), b"b"), (ENCODE, (1, 1), b"c"))
        await asyncio.sleep(0)
        gone.cancel()
        also_gone = asked(batches, (ENCODE, (2, 2), b"d"))[0]
        await asyncio.sleep(0)
        also_gone.cancel()
        workers.let.set()
        assert [await first, await last] == [b"a", b"c"]
        assert workers.seen == [("encode", [b"a"]), ("encode", [b"c"])]

    asyncio.run(scenario())
