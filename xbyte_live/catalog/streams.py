"""Adapter: streams, their keys and their broadcasts; the only caller of their SQL."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection

from xbyte_live.catalog.catalog import Catalog
from xbyte_live.catalog.sql import broadcasts
from xbyte_live.catalog.sql import streams as sql
from xbyte_live.catalog.sql.items import load_item
from xbyte_live.catalog.sql.recordings import record
from xbyte_live.models import FeedLease, Item, Listing, NewStream, Offer, StreamKey, check_slug
from xbyte_live.storage.db.engine import Database

KEY_PREFIX = "xb_"

_KEY_BYTES = 20  # 160 bits: nobody guesses one, so a plain digest keeps it
_HINT = 4
_LONGEST_RESTART = 600.0  # seconds
_MAX_KEY = 200


@dataclass(frozen=True, slots=True)
class KeyMatch:
    """The stream a key opens; ``key_id`` is the number of the key."""

    key_id: int
    slug: str


@dataclass(frozen=True, slots=True)
class EndedBroadcast:
    """A broadcast that is over; ``recording`` is the slug of its title, if it was recorded."""

    slug: str
    broadcast: int
    duration_us: int
    recording: str | None


class Streams:
    """The streams on sale; every method raises ``DatabaseUnavailable`` without a database."""

    def __init__(
        self,
        database: Database,
        catalog: Catalog,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._clock = clock

    async def create(self, new: NewStream, terms: Offer) -> str:
        """Put a stream on sale; returns its first key, which is never shown again.

        Raises ``ItemExists``, ``ItemError`` for a malformed slug.
        """
        check_slug(new.slug)
        key = new_key()

        def work(db: Connection) -> None:
            sql.create(db, new, terms)
            sql.add_key(db, new.slug, _digest(key), key[-_HINT:], self._clock(), None)

        await self._database.write(work)
        await self._catalog.renew(new.slug)
        return key

    async def add_key(self, slug: str, *, lasts: float | None = None) -> str:
        """Add a key, which is never shown again; it expires after ``lasts`` seconds, if given."""
        key, now = new_key(), self._clock()
        expires_at = None if lasts is None else now + lasts
        await self._database.write(
            lambda db: sql.add_key(db, slug, _digest(key), key[-_HINT:], now, expires_at)
        )
        return key

    async def keys(self, slug: str) -> list[StreamKey]:
        """The keys of a stream without their secrets, the oldest first; raises ``ItemNotFound``."""
        return await self._database.read(lambda db: sql.keys(db, slug))

    async def revoke(self, slug: str, ids: Sequence[int] | None = None) -> list[int]:
        """Revoke keys, all of them without ``ids``; a feed that came with one is ended.

        Returns the numbers of the revoked keys; raises ``ItemNotFound``.
        """
        return await self._database.write(lambda db: sql.revoke_keys(db, slug, ids))

    async def rotate(self, slug: str) -> str:
        """Revoke every key of a stream and make a new one; both or neither."""
        key = new_key()

        def work(db: Connection) -> None:
            sql.revoke_keys(db, slug, None)
            sql.add_key(db, slug, _digest(key), key[-_HINT:], self._clock(), None)

        await self._database.write(work)
        return key

    async def match_key(self, key: str) -> KeyMatch | None:
        """The stream a key opens, ``None`` for a wrong or expired key."""
        if not key or len(key) > _MAX_KEY:
            return None
        digest = _digest(key)
        found = await self._database.read(lambda db: sql.match_key(db, digest, self._clock()))
        if found is None or not hmac.compare_digest(found[1], digest):
            return None
        return KeyMatch(found[0], found[2])

    async def begin_feed(self, slug: str, key_id: int | None) -> FeedLease:
        """Lease the stream to a new feed, ending any other lease; raises ``ItemNotFound``."""
        feed = secrets.randbits(62)
        lease = await self._database.write(
            lambda db: broadcasts.begin_feed(db, slug, feed, key_id, self._clock())
        )
        await self._catalog.renew(slug)
        return lease

    async def append(self, slug: str, listing: Listing) -> bool:
        """List a segment whose bytes are stored; false when its feed lost its lease.

        The first segment after a broadcast has ended begins the next one. A call with an unknown
        outcome may be repeated.
        """
        now, known = self._clock(), self._catalog.known(slug)

        def work(db: Connection) -> tuple[Item, int] | None:
            listed = broadcasts.append(db, listing, now)
            return load_item(db, slug, known) if listed else None

        written = await self._database.write(work)
        if written is not None:
            self._catalog.put(*written)
        return written is not None

    async def renew(self, lease: FeedLease, status: str) -> bool:
        """Renew the lease of a feed; false when it lost it."""
        now = self._clock()
        return await self._database.write(
            lambda db: broadcasts.renew(db, lease.feed, lease.slug, now, status)
        )

    async def release(self, lease: FeedLease, status: str) -> None:
        """End the lease of a feed; its broadcast waits for another feed."""
        now = self._clock()
        await self._database.write(lambda db: broadcasts.release(db, lease.feed, now, status))
        await self._catalog.renew(lease.slug)

    async def resume_all(self) -> None:
        """After a restart, let broadcasts that were on air wait for their feeds from now on.

        Those whose last heartbeat is older than ten minutes are not given more time.
        """
        now = self._clock()
        await self._database.write(
            lambda db: broadcasts.resume_all(db, now, now - _LONGEST_RESTART)
        )

    async def end_overdue(
        self, republish_window: float, *, but_not: Collection[str] = ()
    ) -> list[EndedBroadcast]:
        """End the broadcasts without a feed for so many seconds; recordings go on sale.

        Streams in ``but_not`` have a feed, even if its heartbeats could not be written or the
        clock was changed.
        """
        since = self._clock() - republish_window
        ended = []
        overdue = await self._database.read(lambda db: broadcasts.overdue(db, since))
        for slug in (slug for slug in overdue if slug not in but_not):
            over = await self._database.write(partial(self._end, slug=slug, since=since))
            if over is not None:
                await self._catalog.renew(slug)
                ended.append(over)
        return ended

    async def sources(self) -> dict[str, str]:
        """The URL each pulled stream comes from, by slug."""
        return await self._database.read(sql.sources)

    def _end(self, db: Connection, slug: str, since: float) -> EndedBroadcast | None:
        row = broadcasts.end_broadcast(db, slug, since)
        if row is None:
            return None
        recording = record(db, row, self._clock()) if row.recording else None
        return EndedBroadcast(slug, row.broadcast, row.duration_us, recording)


def new_key() -> str:
    """A key for one stream, of letters and digits that need no escaping in a URL."""
    return KEY_PREFIX + secrets.token_hex(_KEY_BYTES)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
