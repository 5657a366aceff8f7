import pytest

from xbyte_live.runtime.rate_limit import RateLimiter, network_of


def test_an_address_may_be_wrong_so_often_in_a_minute() -> None:
    limiter = RateLimiter(3)
    for second in range(3):
        assert not limiter.is_exhausted("192.0.2.1", second)
        limiter.count_failure("192.0.2.1", second)
    assert limiter.is_exhausted("192.0.2.1", 59.9)
    assert not limiter.is_exhausted("192.0.2.2", 59.9)
    assert not limiter.is_exhausted("192.0.2.1", 60)
    limiter.count_failure("192.0.2.1", 60)
    assert limiter.is_exhausted("192.0.2.1", 60)
    assert not limiter.is_exhausted("192.0.2.1", 200)


def test_memory_is_bounded_however_many_addresses_try() -> None:
    limiter = RateLimiter(3, limit=100)
    for number in range(10_000):
        for _ in range(5):
            limiter.count_failure(f"address {number}", 0)
    assert len(limiter._failures) == 100
    assert all(len(failures) == 3 for failures in limiter._failures.values())


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("testclient", "testclient"),
    ],
)
def test_who_has_an_ipv6_network_is_one(address: str, network: str) -> None:
    assert network_of(address) == network
