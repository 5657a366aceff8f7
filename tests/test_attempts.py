from xbyte_live.attempts import Attempts


def test_an_address_may_be_wrong_so_often_in_a_minute() -> None:
    attempts = Attempts(3)
    for second in range(3):
        assert not attempts.exhausted("192.0.2.1", second)
        attempts.failed("192.0.2.1", second)
    assert attempts.exhausted("192.0.2.1", 59.9)
    assert not attempts.exhausted("192.0.2.2", 59.9)
    assert not attempts.exhausted("192.0.2.1", 60)
    attempts.failed("192.0.2.1", 60)
    assert attempts.exhausted("192.0.2.1", 60)
    assert not attempts.exhausted("192.0.2.1", 200)


def test_memory_is_bounded_however_many_addresses_try() -> None:
    attempts = Attempts(3, limit=100)
    for number in range(10_000):
        for _ in range(5):
            attempts.failed(f"address {number}", 0)
    assert len(attempts._failures) == 100
    assert all(len(failures) == 3 for failures in attempts._failures.values())
