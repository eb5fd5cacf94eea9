"""A group of one: what several workers agree on is what this one says."""

from nmt.distributed import Workers


def test_a_worker_alone_agrees_with_itself() -> None:
    alone = Workers()
    assert alone.is_main
    assert alone.max([1.0, 0.0]) == [1.0, 0.0]
    assert alone.min([1.0, 0.0]) == [1.0, 0.0]
    assert alone.sum([3.5]) == [3.5]
    alone.barrier()


def test_shares_are_every_so_manyth_item() -> None:
    items = [str(n) for n in range(7)]
    shares = [Workers(rank, 3).shard(items) for rank in range(3)]
    assert shares == [["0", "3", "6"], ["1", "4"], ["2", "5"]]
    assert Workers().gather(items) == items
