"""What holds our keys cannot be looked into by what runs as the same user (money rule 10)."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from eth_account import Account

from tests.integration.test_workers import helpers_of
from tests.support.broadcaster import children_of
from tests.support.chain import SharedDevnet
from tests.support.server import a_server

NOBODY = 65_534
KEY = "0x" + "5e" * 32
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="prctl(2) is of Linux")

# A process of some user that holds a key, and another one of that user that wants it.
_PROGRAM = f"""
import ctypes, os, sys
from xbyte_live.runtime.processes import seal

def become_nobody():
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
        os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # as if it had been started by that user

sealed, told = os.pipe()
waits, over = os.pipe()
holder = os.fork()
if holder == 0:
    become_nobody()
    if sys.argv[1] == "sealed":
        seal()
    os.close(over)
    os.write(told, b".")
    os.read(waits, 1)
    print("own fd", bool(os.listdir("/proc/self/fd")), flush=True)
    os._exit(0)
os.read(sealed, 1)
thief = os.fork()
if thief == 0:
    become_nobody()
    for name in ("environ", "mem", "maps", "fd", "stat"):
        try:
            path = f"/proc/{{holder}}/{{name}}"
            print(name, bool(os.listdir(path) if name == "fd" else open(path, "rb")), flush=True)
        except PermissionError:
            print(name, "refused", flush=True)
    os._exit(0)
os.waitpid(thief, 0)
os.close(over)
os.waitpid(holder, 0)
"""


def looked_into(kind: str) -> dict[str, str]:
    """What a thief gets of a process, by name; and whether that knows its own descriptors."""
    command = (sys.executable, "-c", _PROGRAM, kind)
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    told = (line.rpartition(" ") for line in run.stdout.splitlines())
    return {name: what for name, _, what in told}


def test_what_is_sealed_is_closed_to_its_own_user() -> None:
    open_, sealed = looked_into("open"), looked_into("sealed")
    assert (open_["environ"], open_["maps"], open_["fd"]) == ("True", "True", "True")
    assert [sealed[name] for name in ("environ", "mem", "maps", "fd")] == ["refused"] * 4
    assert (sealed["stat"], sealed["own fd"]) == ("True", "True")  # what anybody may see


def is_sealed(pid: int) -> bool:
    """Whether a process is, that runs as another user or group than root: its files are root's."""
    status = Path(f"/proc/{pid}/environ").stat()
    return (status.st_uid, status.st_gid) == (0, 0)


async def test_a_server_and_its_helpers_are_sealed_and_what_decodes_is_not(
    tmp_path: Path, devnet: SharedDevnet
) -> None:
    pay_to = Account.create().address
    async with a_server(tmp_path, devnet.rpc_url, pay_to, KEY, workers="2") as server:
        await server.stop()
        server.group = NOBODY if os.geteuid() == 0 else None
        await server.start()
        assert server.process is not None
        leader = server.process.pid
        helpers: set[int] = set()
        while not helpers or not all(map(is_sealed, helpers)):
            helpers = helpers_of(leader)
        assert is_sealed(leader)
        others = []
        for child in children_of(leader):
            with suppress(FileNotFoundError):
                command = Path(f"/proc/{child}/cmdline").read_text()
                if "live.fork_server" in command:
                    others.append(is_sealed(child))
        assert others == [False]  # it holds nothing, and shows that the look can tell


def test_the_process_that_charges_is_sealed(sqlite_url: str) -> None:
    program = (
        "import ctypes, os, socket, sys\n"
        "from xbyte_live.payments.ledger.charge_worker import serve\n"
        "ours, theirs = socket.socketpair()\n"
        "ours.shutdown(socket.SHUT_WR)\n"
        "prctl = ctypes.CDLL(None).prctl\n"
        "before = prctl(3, 0, 0, 0, 0)\n"
        "serve(theirs, sys.argv[1], 120.0, 'warning')\n"
        "print(before, prctl(3, 0, 0, 0, 0))\n"
    )
    command = (sys.executable, "-c", program, sqlite_url)
    run = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=60, start_new_session=False
    )
    assert run.stdout.split() == ["1", "0"]
