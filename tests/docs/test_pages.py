"""Every block, table and link of the documentation is known, and is what the code says.

How each kind of block is checked stands in ``CHECKED``; a block of any other kind fails.
"""

import configparser
import importlib.util
import json
import math
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import click
import pytest

from tests.support.docs import DOCS, GENERATED, PAGES, README, ROOT, Block, blocks, table_in
from tests.support.shell import Command, commands, output, script
from tests.support.web import Site
from xbyte_live.cli import main
from xbyte_live.config import load_settings, setting_rows
from xbyte_live.money import Price

BLOCKS = [block for page in PAGES for block in blocks(page)]
COMMANDS = [one for block in BLOCKS if block.language in ("sh", "console", "") for one in
            commands(block)]  # fmt: skip

# Programs of others. What they do is theirs; that their words are the shell's, `bash -n` says.
# `pip`, `docker`, `python -m` and `sqlite3` are looked into below or in test_following.
SYSTEM = frozenset(
    {
        "apt-get", "chgrp", "chmod", "curl", "docker", "export", "head", "install", "journalctl",
        "ln", "pip", "pytest", "python", "python3", "rsync", "sqlite3", "systemctl", "useradd",
        "vlc",
    }
)  # fmt: skip

# What the environment of a command may hold besides the settings.
OF_THE_PAYER = frozenset({"XBYTE_WALLET", "XBYTE_WALLET_KEY", "XBYTE_WALLET_PASSWORD"})
VARIABLES = {row.env for row in setting_rows()} | OF_THE_PAYER


def id_of(value: object) -> str:
    return str(value)


def in_language(*languages: str) -> pytest.MarkDecorator:
    chosen = [block for block in BLOCKS if block.language in languages]
    assert chosen
    return pytest.mark.parametrize("block", chosen, ids=id_of)


def parse(words: tuple[str, ...]) -> None:
    """Read a command line of ours as click does, and run nothing of it."""
    command: click.Command = main
    context, rest, parent = None, list(words), None
    while True:
        name = command.name or "xbyte-live"
        if not isinstance(command, click.Group):
            command.make_context(name, rest, parent=parent, resilient_parsing=False)
            return
        context = click.Context(command, info_name=name, parent=parent)
        assert rest and not rest[0].startswith("-"), f"no command in {words}"
        found, parent = command.get_command(context, rest[0]), context
        assert found is not None, f"there is no command {rest[0]}"
        command, rest = found, rest[1:]


# --- every block ------------------------------------------------------------------------------


def a_formula(block: Block) -> None:
    """The one formula, over sizes and prices, beside the code's."""
    text = (
        block.text.partition("=")[2].replace("×", "*").replace(",", "").replace("max(1 ", "max(1, ")
    )
    for size in (1, 1_047, 188_000, 750_112, 2**33 + 1):
        for price in ("0.000001", "0.001", "0.002", "12.5"):
            names = {"max": max, "ceil": math.ceil, "bytes": size, "price": Fraction(price)}
            assert eval(text, {"__builtins__": {}}, names) == Price.parse(price).amount_for(size)


def a_tree(block: Block) -> None:
    """The folders of the package, each once, and no other."""
    named = re.findall(r"^  (\w+)/ ", block.text, re.MULTILINE)
    folders = {file.parent.name for file in (ROOT / "xbyte_live").glob("*/__init__.py")}
    assert sorted(named) == sorted(folders)


def a_list_of_urls(block: Block) -> None:
    """Routes of the application, each with its method."""
    routes = {
        (method, route.path)
        for route in Site().app.routes
        for method in getattr(route, "methods", None) or {"GET"}
    }
    for line in block.text.splitlines():
        method, path, *about = line.split()
        assert about, f"nothing is said of {path}"
        if path not in NOT_IN_THE_SITE:
            assert (method, path) in routes, path


# Made only where there is a studio or a channel ledger, which `Site` has not; test_following
# asks a whole server for them.
NOT_IN_THE_SITE = ("/studio", "/channels/{channel_id}", "/api/v1/openapi.json")

TEXT: dict[str, Callable[[Block], None]] = {
    "amount = ": a_formula,
    "xbyte_live/": a_tree,
    "GET /": a_list_of_urls,
}

CHECKED = {
    "": "README's two commands: CI runs the second, tests/cli/test_demo the demo",
    "sh": "test_following runs what can be run here; all of it is read here",
    "console": "as sh, and the output is compared in test_following",
    "html": "tests/browser/test_embedding runs it in a browser; here all are compared",
    "python": "test_following runs it",
    "json": "test_following compares it with what the server says",
    "m3u8": "test_following compares it with what the server says",
    "toml": "loaded as the configuration it is",
    "nginx": "nginx -t where there is nginx, else its braces",
    "caddyfile": "caddy validate where there is Caddy, else its braces",
    "ini": "systemd-analyze verify where there is systemd, else its keys; variables are settings",
    "text": "by its beginning, see TEXT",
}


@pytest.mark.parametrize("block", BLOCKS, ids=id_of)
def test_every_block_is_of_a_kind_that_is_checked(block: Block) -> None:
    assert block.language in CHECKED
    if block.language == "":
        assert block.page == README
        assert len(block.text.splitlines()) == 1


@in_language("text")
def test_plain_text_says_what_the_code_does(block: Block) -> None:
    (check,) = [found for start, found in TEXT.items() if block.text.startswith(start)]
    check(block)


@in_language("sh", "console", "")
def test_commands_are_of_the_shell(block: Block) -> None:
    run = subprocess.run(("bash", "-n"), input=script(block), capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert commands(block)


@pytest.mark.parametrize("command", COMMANDS, ids=id_of)
def test_commands_take_the_words_they_are_given(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {name for name, _ in command.env} <= VARIABLES
    monkeypatch.chdir(tmp_path)
    for name in ("talk.mp4", "dataset.parquet", "xbyte-live.toml"):
        Path(name).touch()
    Path("music").mkdir()
    words = tuple(word.replace("/etc/xbyte-live/", "") for word in command.words)
    if command.is_ours:
        parse(words[1:])
        return
    program = command.program.rpartition("/")[2]
    assert program in SYSTEM
    if program == "export":
        assert words[1].partition("=")[0] in VARIABLES
    if words[1:2] == ("-m",) and program == "python":
        assert importlib.util.find_spec(words[2]) is not None
    if program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        wanted = re.findall(r"\[(.*?)\]", " ".join(words))
        assert set(wanted) <= set(extras["optional-dependencies"])
    if program == "docker" and words[1] == "run":
        given = [word.partition("=")[0] for word in words if word.startswith("XBYTE_")]
        assert set(given) <= VARIABLES
        ports = [word.partition(":")[2] for word in words if re.fullmatch(r"\d+:\d+", word)]
        assert f"EXPOSE {' '.join(ports)}" in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_sentences_exist(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for text in re.findall(r"`(xbyte-live [^`]+)`", prose):
        words = text.split()[1:]
        command: click.Command | None = main
        while isinstance(command, click.Group) and words:
            command = command.get_command(click.Context(command), words.pop(0))
        assert isinstance(command, click.Command), text
        options = {name for param in command.params for name in param.opts}
        assert {word for word in words if word.startswith("--")} <= options, text


# --- configuration of others ------------------------------------------------------------------


@in_language("toml")
def test_a_configuration_file_is_taken(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "xbyte-live.toml"
    file.write_text(block.text)
    settings = load_settings(environ={}, file=file)
    assert settings.pay_to


def balanced(text: str) -> bool:
    return text.count("{") == text.count("}") > 0


@in_language("nginx")
def test_nginx_takes_its_site(block: Block, tmp_path: Path) -> None:
    assert balanced(block.text)
    if (nginx := shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")) is None:
        return
    cert, key = a_certificate(tmp_path)
    site = re.sub(r"/etc/letsencrypt/\S+/fullchain.pem", str(cert), block.text)
    site = re.sub(r"/etc/letsencrypt/\S+/privkey.pem", str(key), site)
    config = tmp_path / "nginx.conf"
    config.write_text(f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{\n{site}\n}}\n")
    run = subprocess.run(
        (nginx, "-t", "-e", tmp_path / "log", "-c", config), capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def a_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of nobody, and its key, in two PEM files."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "media.example.org")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now,
                                now + timedelta(1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert_file, key_file


@in_language("caddyfile")
def test_caddy_takes_its_file(block: Block, tmp_path: Path) -> None:
    assert balanced(block.text)
    if (caddy := shutil.which("caddy")) is None:
        return
    file = tmp_path / "Caddyfile"
    file.write_text(block.text)
    run = subprocess.run(
        (caddy, "validate", "--adapter", "caddyfile", "--config", file),
        capture_output=True,
        text=True,
        env={"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)},
    )
    assert run.returncode == 0, run.stderr


@in_language("ini")
def test_systemd_takes_its_unit(block: Block, tmp_path: Path) -> None:
    if not block.text.startswith("["):  # a file of variables
        names = {line.partition("=")[0] for line in block.text.splitlines()}
        assert names <= VARIABLES
        return
    unit = configparser.RawConfigParser()
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(block.text)
    program, *words = unit["Service"]["ExecStart"].split()
    assert program == "/opt/xbyte/bin/xbyte-live"  # where a-real-server installs it
    assert words == ["serve", "--config", "/etc/xbyte-live/xbyte-live.toml"]
    if (systemd := shutil.which("systemd-analyze")) is None:
        return
    file = tmp_path / "xbyte-live.service"
    file.write_text(block.text.replace(program, sys.executable).replace("User=xbyte", "User=root"))
    run = subprocess.run((systemd, "verify", file), capture_output=True, text=True)
    assert [line for line in run.stderr.splitlines() if file.name in line] == []


# --- what is written twice --------------------------------------------------------------------


def test_all_pages_tell_the_same_lines_to_embed() -> None:
    texts = {block.text for block in BLOCKS if block.language == "html"}
    assert len(texts) == 1


@pytest.mark.parametrize("name", GENERATED)
def test_tables_made_from_code_are_current(name: str) -> None:
    assert table_in(DOCS / name) == GENERATED[name](), "python -m tests.support.docs"


def test_a_price_in_an_example_is_right() -> None:
    assert Price.parse("0.001").amount_for(750_112) == 716
    for block in BLOCKS:
        for size, amount in re.findall(r"BYTES=(\d+),AMOUNT=(\d+)", block.text):
            assert Price.parse("0.001").amount_for(int(size)) == int(amount), block


@in_language("json")
def test_json_is_json(block: Block) -> None:
    assert isinstance(json.loads(block.text), dict)


@in_language("console")
def test_a_transcript_shows_output(block: Block) -> None:
    assert output(block)


# --- links ------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The names of a page's headings in links, as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    kept = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {name.replace(" ", "-") for name in kept}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.is_file(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page: Path) -> None:
    for name in re.findall(r"`((?:xbyte_live|tests|samples|\.docker)/[\w./-]+)`", page.read_text()):
        assert (ROOT / name).exists() or name == "xbyte_live/web/static", name


def test_the_index_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", (DOCS / "index.md").read_text("utf-8")))
    assert linked == {page.name for page in DOCS.glob("*.md")} - {"index.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_markdown_alone(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert prose.startswith("# ")
    assert re.findall(r"<[a-zA-Z/!]", re.sub(r"`[^`]*`", "", prose)) == []


def test_the_readme_is_short() -> None:
    assert len(README.read_text("utf-8").splitlines()) <= 160
