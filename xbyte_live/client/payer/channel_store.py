"""Adapter: a wallet's channels on disk, so that a restart forgets nothing that was signed."""

import asyncio
import contextlib
import fcntl
import json
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xbyte_live.client.payer.channel import Open, PayerChannel
from xbyte_live.errors import ConfigError, StoreError
from xbyte_live.evm.channels import ChannelConfig, Deposit

_NAME = re.compile(r"0x[0-9a-f]{64}")
_LARGE = 256 * 1024  # bytes after which a file is written anew with its last line alone
_FIRST_LOOK, _LONGEST_LOOK = 0.002, 0.05  # seconds between two looks whether a lock is free


@dataclass(slots=True)
class _File:
    """A channel's file while this process has its turn: its lock, and its end as last seen."""

    lock: int
    journal: int
    size: int
    inode: int


class FileChannelStore:
    """A folder with two files for each channel: JSON lines, the last of which holds, and a lock.

    Any number of processes may share it: a channel is read anew at each turn. A line is on disk
    before its voucher is presented; one that was torn by a crash was never presented.

    Raises ``StoreError`` for the disk, ``ConfigError`` for a file that is not a channel's.
    """

    def __init__(
        self, folder: Path, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._folder = folder
        self._sleep = sleep
        self._taken: dict[str, _File] = {}
        self._last: dict[str, tuple[int, int, PayerChannel]] = {}  # inode, size, channel
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from None

    def load(self) -> dict[str, PayerChannel]:
        """Every channel that is kept, by its id."""
        found = {}
        for path in sorted(self._folder.glob("0x*.jsonl")):
            if _NAME.fullmatch(path.stem):
                channel = _last_line(path.read_bytes(), path)
                if channel is not None:
                    found[path.stem] = channel
        return found

    async def take(self, channel_id: str) -> PayerChannel | None:
        """Shut other processes out of a channel, and read how it stands if it is known."""
        lock = self._open(channel_id, ".lock")
        try:
            await self._lock(lock)
            journal = self._open(channel_id, ".jsonl")
        except BaseException:
            os.close(lock)
            raise
        try:
            channel = self._read(channel_id, journal)
            status = os.fstat(journal)
        except BaseException:
            os.close(journal)
            os.close(lock)
            raise
        self._taken[channel_id] = _File(lock, journal, status.st_size, status.st_ino)
        return channel

    async def keep(self, channel: PayerChannel, *, sync: bool) -> None:
        """Note how a channel stands; with ``sync`` it is on disk on return."""
        if sync:
            await asyncio.to_thread(self._append, channel, sync=True)
        else:
            self._append(channel, sync=False)

    def give(self, channel_id: str) -> None:
        """Let other processes in again."""
        file = self._taken.pop(channel_id, None)
        if file is not None:
            os.close(file.journal)
            os.close(file.lock)

    async def _lock(self, file: int) -> None:
        wait = _FIRST_LOOK
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await self._sleep(wait)
                wait = min(2 * wait, _LONGEST_LOOK)
            except OSError as error:
                raise self._unwritable(error) from None
            else:
                return

    def _read(self, channel_id: str, journal: int) -> PayerChannel | None:
        status = os.fstat(journal)
        seen = self._last.get(channel_id)
        if seen is not None and seen[:2] == (status.st_ino, status.st_size):
            return seen[2]
        text = os.pread(journal, status.st_size, 0)
        torn = len(text) - (text.rfind(b"\n") + 1)
        if torn:  # it was being written when its process ended, so it was never presented
            os.ftruncate(journal, len(text) - torn)
        return _last_line(text, self._path(channel_id, ".jsonl"))

    def _append(self, channel: PayerChannel, *, sync: bool) -> None:
        file = self._taken[channel.channel_id]
        line = json.dumps(asdict(channel), separators=(",", ":")).encode() + b"\n"
        try:
            if file.size > _LARGE:
                self._rewrite(channel.channel_id, file, line)
            else:
                _write(file.journal, line)
                file.size += len(line)
            if sync:
                os.fsync(file.journal)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(file.journal, file.size)  # nothing of it may stay
            raise self._unwritable(error) from None
        self._last[channel.channel_id] = (file.inode, file.size, channel)

    def _rewrite(self, channel_id: str, file: _File, line: bytes) -> None:
        """Begin the file anew, in one step."""
        path, scratch = self._path(channel_id, ".jsonl"), self._path(channel_id, ".new")
        scratch.unlink(missing_ok=True)
        journal = self._open(channel_id, ".new")
        try:
            _write(journal, line)
            os.fsync(journal)
            scratch.rename(path)
        except BaseException:
            os.close(journal)
            raise
        os.close(file.journal)
        file.journal, file.size, file.inode = journal, len(line), os.fstat(journal).st_ino
        self._sync_folder()

    def _open(self, channel_id: str, suffix: str) -> int:
        path = self._path(channel_id, suffix)
        try:
            fresh = not path.exists()
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            if fresh:
                self._sync_folder()
        except OSError as error:
            raise self._unwritable(error) from None
        return file

    def _sync_folder(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY)
        with contextlib.suppress(OSError):  # not every file system can
            os.fsync(folder)
        os.close(folder)

    def _path(self, channel_id: str, suffix: str) -> Path:
        assert _NAME.fullmatch(channel_id)
        return self._folder / f"{channel_id}{suffix}"

    def _unwritable(self, error: OSError) -> StoreError:
        return StoreError(f"{self._folder} cannot be written: {error.strerror}")


def channels_folder(wallet: Path, address: str) -> Path:
    """Where the channels of an address are kept, beside the wallet's file."""
    return wallet.parent / "channels" / address.lower()


def _write(file: int, line: bytes) -> None:
    if os.write(file, line) != len(line):
        raise OSError(28, "the disk is full")


def _last_line(text: bytes, path: Path) -> PayerChannel | None:
    whole = text[: text.rfind(b"\n") + 1].splitlines()
    if not whole:
        return None
    try:
        return _channel(json.loads(whole[-1]))
    except (ValueError, TypeError, KeyError):
        raise ConfigError(f"{path} is not the state of a channel; move it away") from None


def _channel(fields: dict[str, Any]) -> PayerChannel:
    return PayerChannel(
        **{
            **fields,
            "config": ChannelConfig(**fields["config"]),
            "open": tuple(Open(**voucher) for voucher in fields["open"]),
            "gone": tuple(fields["gone"]),
            "deposit": _deposit(fields["deposit"]),
            "doubtful": _deposit(fields.get("doubtful")),
            "loose": tuple(Deposit(**order) for order in fields.get("loose", ())),
        }
    )


def _deposit(fields: dict[str, Any] | None) -> Deposit | None:
    return None if fields is None else Deposit(**fields)
