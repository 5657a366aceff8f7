from xbyte_live.web.sessions import limits
from xbyte_live.web.sessions.limits import PlayerLimit


def test_as_many_as_may_at_a_time() -> None:
    players = PlayerLimit(limit=2)
    assert [players.enter("a", "192.0.2.1", 0.0) for _ in range(3)] == [True, True, False]
    players.leave("a")
    assert players.enter("a", "192.0.2.1", 0.0)
    assert players.enter("b", "192.0.2.1", 0.0), "each token on its own"


def test_addresses_count_for_a_while() -> None:
    players = PlayerLimit(limit=2, window=60)
    for address, now, may in (
        ("192.0.2.1", 0.0, True),
        ("192.0.2.2", 1.0, True),
        ("192.0.2.3", 2.0, False),
        ("192.0.2.1", 59.0, True),
        ("192.0.2.3", 60.9, False),
        ("192.0.2.3", 61.0, True),
    ):
        assert players.enter("a", address, now) is may, (address, now)
        if may:
            players.leave("a")


def test_one_ipv6_network_is_one_place() -> None:
    players = PlayerLimit(limit=1)
    assert players.enter("a", "2001:db8::1", 0.0)
    players.leave("a")
    assert players.enter("a", "2001:db8::ffff:2", 1.0)
    players.leave("a")
    assert not players.enter("a", "2001:db8:0:1::1", 1.0)


def test_what_is_remembered_is_bounded() -> None:
    players = PlayerLimit(limit=1)
    for number in range(limits.KNOWN + 10):
        assert players.enter(f"token {number}", "", 0.0)
    assert len(players._by_name) == limits.KNOWN
    players.leave("token 0")  # of one that was forgotten
