"""The command line as scripts and people use it: output, exit codes, one line for each error."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from tests.support.server import free_port
from xbyte_live.cli import doctor, main
from xbyte_live.cli.main import COMMANDS
from xbyte_live.frontend.bundle import build
from xbyte_live.web.pages.assets import NEEDED, Assets

PAYEE = "0x00000000000000000000000000000000000000aa"


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment of its own; nothing of the machine's settings leaks in."""
    monkeypatch.chdir(tmp_path)
    return {"XBYTE_DATA_DIR": str(tmp_path / "data"), "XBYTE_WALLET": str(tmp_path / "wallet")}


def run(env: dict[str, str], *args: str, **more: Any) -> Result:
    return CliRunner().invoke(main, args, env=env, **more)


def good(env: dict[str, str], *args: str, **more: Any) -> str:
    result = run(env, *args, **more)
    assert result.exit_code == 0, result.output
    return result.stdout


def bad(env: dict[str, str], *args: str, **more: Any) -> str:
    """The one line that says what went wrong."""
    result = run(env, *args, **more)
    assert result.exit_code != 0
    assert result.stdout == ""
    [line] = result.stderr.strip().splitlines()
    assert line.startswith("Error: ")
    return line


def test_objects_come_and_go(env: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "Data Set.bin"
    file.write_bytes(b"x" * 2**20)
    [added] = json.loads(good(env, "add", str(file), "--price", "0.002", "--json"))
    assert (added["slug"], added["cost"], added["path"]) == ("data-set", 2000, "/objects/data-set")
    assert "data-set" in good(env, "list")
    assert bad(env, "add", str(file)).count("data-set") == 1
    [changed] = json.loads(good(env, "price", "data-set", "0.5", "--pay-to", PAYEE, "--json"))
    assert (changed["price_per_mb"], changed["pay_to"]) == ("0.5", PAYEE)
    good(env, "add", str(file), "--replace", "--rewatch", "free")
    good(env, "remove", "data-set")
    assert json.loads(good(env, "list", "--json")) == []
    assert "data-set" in bad(env, "remove", "data-set")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("price", "nothing", "1"), "nothing"),
        (("price", "Bad Slug", "1"), "slug"),
        (("price", "a", "0.0000001"), "6 decimals"),
        (("price", "a", "1e3"), "decimal"),
        (("serve", "--port", "70000"), "port"),
        (("serve",), "XBYTE_PAY_TO"),
        (("serve", "--pay-to", PAYEE), "XBYTE_FACILITATORS"),
        (("serve", "--pay-to", "0x12"), "address"),
        (("serve", "--networks", "base"), "eip155"),
        (("pay", "ftp://example.org/x"), "http"),
        (("wallet", "show"), "wallet new"),
        (("package", "."), "no media files"),
    ],
)
def test_every_mistake_is_one_line(env: dict[str, str], args: tuple[str, ...], says: str) -> None:
    assert says in bad(env | {"XBYTE_WALLET_KEY": "11" * 32 if args[0] == "pay" else ""}, *args)


def test_a_key_never_shows(env: dict[str, str]) -> None:
    secret = "not-a-key-but-secret"
    env |= {"XBYTE_GAS_KEY": secret, "XBYTE_PAY_TO": PAYEE, "XBYTE_WALLET_KEY": secret}
    for args in (("serve",), ("doctor",), ("wallet", "show"), ("list",)):
        result = run(env, *args)
        assert secret not in result.output
        assert "Traceback" not in result.output


def test_a_wallet_is_made_once(env: dict[str, str]) -> None:
    env |= {"XBYTE_WALLET_PASSWORD": "correct horse"}
    made = json.loads(good(env, "wallet", "new", "--json"))
    assert good(env, "wallet", "show").strip() == made["address"]
    assert "wallet" in bad(env, "wallet", "new")
    assert (Path(env["XBYTE_WALLET"]).stat().st_mode & 0o777) == 0o600


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the built pages, with all they need."""
    folder = tmp_path / "static"
    folder.mkdir()
    for name in NEEDED:
        (folder / name).write_text("built")
    monkeypatch.setattr(doctor, "Assets", lambda: Assets(folder))
    return folder


def test_doctor_says_when_the_pages_are_missing(env: dict[str, str], built: Path) -> None:
    (built / "watch.js").unlink()
    found = {f["check"]: f for f in json.loads(run(env, "doctor", "--json").stdout)}
    assert not found["pages"]["ok"]
    assert found["pages"]["says"].startswith("watch.js: ")
    assert "install again where npm reaches its registry" in found["pages"]["says"]


def test_what_the_pages_need_is_what_is_built() -> None:
    build()  # nothing where it is up to date
    assert asyncio.run(Assets().missing()) == []


def test_doctor_says_what_to_do(env: dict[str, str], built: Path) -> None:
    port = free_port()
    env |= {
        "XBYTE_RPC_URLS": f"eip155:8453=http://127.0.0.1:{port}",
        "XBYTE_FACILITATORS": f"http://127.0.0.1:{port}",
        "XBYTE_PORT": str(free_port()),
        "XBYTE_RTMP_PORT": str(free_port()),
    }
    result = run(env, "doctor", "--json")
    assert result.exit_code == 1
    found = {f["check"]: (f["ok"], f["says"]) for f in json.loads(result.stdout)}
    assert {check for check, (ok, _) in found.items() if ok} == {
        "networks",
        "port",
        "rtmp",
        "database",
        "store",
        "pages",
    }
    assert "XBYTE_PAY_TO" in found["payee"][1]
    assert "rpc_urls" in found["chain"][1]


def test_a_taken_port_is_said(env: dict[str, str]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        env |= {"XBYTE_PAY_TO": PAYEE, "XBYTE_FACILITATORS": "http://127.0.0.1:9"}
        done = subprocess.run(
            [sys.executable, "-m", "xbyte_live", "serve", "--port", port],
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert f"port {port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_help_line_of_a_command_is_its_own() -> None:
    for name, (_, line) in COMMANDS.items():
        command = main.get_command(click.Context(main), name)
        assert command is not None and command.help is not None
        assert (command.name, command.help.partition("\n")[0]) == (name, line)


def test_help_shows_every_command(env: dict[str, str]) -> None:
    shown = good(env, "--help")
    assert all(f"\n  {name} " in shown for name in COMMANDS)
    assert "No such command 'sell'" in run(env, "sell").stderr


def test_commands_about_the_catalog_know_no_chain(tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(b"x" * 1000)
    commands = [
        ["list"],
        ["add", str(tmp_path / "file.bin"), "--json"],
        ["price", "file", "0.5"],
        ["list", "--json"],
        ["remove", "file"],
    ]
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-c", _CATALOG_COMMAND, *command],
            env={"XBYTE_DATA_DIR": str(tmp_path / "data")},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]"), done.stderr


_CATALOG_COMMAND = """
import sys
from xbyte_live.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    print()
    chain = {"web3", "x402", "eth_account", "eth_utils", "starlette", "uvicorn"}
    print(sorted(chain & set(sys.modules)))
    raise
"""


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from xbyte_live.cli import main\n"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0\n"
        "heavy = {'web3', 'av', 'sqlalchemy', 'starlette', 'x402', 'rich', 'httpx2'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
