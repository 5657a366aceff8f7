"""Segments leave the packager in order, few at a time, and a failing write ends it."""

import hashlib
import threading

import pytest

from xbyte_live.media.vod.segment_writer import SegmentWriter


def test_segments_are_taken_in_order_by_one_thread() -> None:
    taken: list[tuple[int, bytes]] = []
    threads: set[int] = set()

    def take(index: int, segment: bytes) -> None:
        threads.add(threading.get_ident())
        taken.append((index, segment))

    writer = SegmentWriter(take, video_codec=None, expected_us=1)
    for number in range(20):
        writer.put(bytes([number]) * 188)
    written = writer.finish()
    assert taken == [(number, bytes([number]) * 188) for number in range(20)]
    assert [segment.sha256 for segment in written] == [
        hashlib.sha256(segment).hexdigest() for _, segment in taken
    ]
    assert {segment.size for segment in written} == {188}
    assert len(threads) == 1
    assert writer.poster() is None


def test_a_slow_taker_holds_the_packager_back() -> None:
    taken = threading.Semaphore(0)
    go_on = threading.Semaphore(0)
    waiting = threading.Event()

    def take(index: int, segment: bytes) -> None:
        taken.release()
        go_on.acquire()

    writer = SegmentWriter(take, video_codec=None, expected_us=1)

    def fill() -> None:
        writer.put(b"0")
        writer.put(b"1")
        waiting.set()
        writer.put(b"2")

    filler = threading.Thread(target=fill)
    filler.start()
    assert waiting.wait(30)
    assert taken.acquire(timeout=30)
    assert filler.is_alive()
    assert not taken.acquire(blocking=False)
    go_on.release(3)
    filler.join(30)
    assert not filler.is_alive()
    assert len(writer.finish()) == 3


def test_what_the_taker_raises_comes_out() -> None:
    def take(index: int, segment: bytes) -> None:
        raise OSError("no room")

    writer = SegmentWriter(take, video_codec=None, expected_us=1)
    writer.put(b"0")
    with pytest.raises(OSError, match="no room"):
        writer.finish()
    writer.abandon()


def test_an_abandoned_writer_takes_no_more() -> None:
    taken: list[int] = []
    running, go_on = threading.Event(), threading.Event()

    def take(index: int, segment: bytes) -> None:
        taken.append(index)
        running.set()
        go_on.wait(30)

    writer = SegmentWriter(take, video_codec=None, expected_us=1)
    writer.put(b"0")
    writer.put(b"1")
    assert running.wait(30)
    ending = threading.Thread(target=writer.abandon)
    ending.start()
    go_on.set()
    ending.join(30)
    assert not ending.is_alive()
    assert taken in ([0], [0, 1])  # the second may have begun before the writer was told
