"""Who may import whom: the table of the design, held over every import of every module.

Imports inside functions count like any other. A module without a row in ``LAYERS`` fails.
"""

import ast
import fnmatch
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "xbyte_live"

# The first row that matches a module gives its layer; modules are named by their path.
LAYERS: tuple[tuple[str, str], ...] = (
    ("errors", "0 values"),
    ("money", "0 values"),
    ("models", "0 values"),
    ("config", "0 values"),
    ("environment", "1 pure"),
    ("pricing", "1 pure"),
    ("vitals", "1 pure"),
    ("rhythm", "1 pure"),
    ("attempts", "1 pure"),
    ("addresses", "1 pure"),
    ("backoff", "1 pure"),
    ("rtmp/server", "2 adapters"),
    ("rtmp/peer", "2 adapters"),
    ("rtmp/*", "1 pure"),
    ("media/playlist", "1 pure"),
    ("media/ladder", "1 pure"),
    ("media/*", "2 adapters"),
    ("payments/headers", "1 pure"),
    ("payments/voucher", "1 pure"),
    ("payments/requirements", "1 pure"),
    ("payments/eip712", "1 pure"),
    ("payments/eip3009", "1 pure"),
    ("payments/wire", "1 pure"),
    ("payments/methods", "1 pure"),
    ("payments/exact", "3 parts"),
    ("payments/channels", "3 parts"),
    ("payments/order", "1 pure"),
    ("payments/gate", "3 parts"),
    ("payments/sessions", "3 parts"),
    ("payments/*", "2 adapters"),
    ("db/*", "2 adapters"),
    ("store/*", "2 adapters"),
    ("display", "2 adapters"),
    ("snapshots", "2 adapters"),
    ("tasks", "2 adapters"),
    ("helping", "2 adapters"),
    ("sealing", "2 adapters"),
    ("board", "2 adapters"),
    ("batching", "2 adapters"),
    ("webhooks", "2 adapters"),
    ("ledger/*", "3 parts"),
    ("catalog", "3 parts"),
    ("streams", "3 parts"),
    ("airing", "3 parts"),
    ("live", "3 parts"),
    ("pulls", "3 parts"),
    ("recordings", "3 parts"),
    ("stills", "3 parts"),
    ("settlement/*", "3 parts"),
    ("housekeeping", "3 parts"),
    ("intake", "3 parts"),
    ("web/tally", "1 pure"),
    ("web/*", "4 edge"),
    ("broadcasting", "5 wiring"),
    ("charging", "5 wiring"),
    ("administering", "5 wiring"),
    ("admitting", "5 wiring"),
    ("auditing", "5 wiring"),
    ("clearing", "5 wiring"),
    ("renting", "5 wiring"),
    ("settling", "5 wiring"),
    ("service", "5 wiring"),
    ("streaming", "5 wiring"),
    ("doctor", "5 wiring"),
    ("shelving", "5 wiring"),
    ("paying", "5 wiring"),
    ("wallets", "5 wiring"),
    ("borrowing", "5 wiring"),
    ("playing", "5 wiring"),
    ("measuring", "5 wiring"),
    ("demo", "5 wiring"),
    ("cli/*", "5 wiring"),
    ("client/*", "client"),
    ("devnet/*", "devnet"),
    ("player/*", "build"),
)

# What a layer may import besides its own folder.
BELOW: dict[str, tuple[str, ...]] = {
    "0 values": (),
    "1 pure": ("0 values",),
    "2 adapters": ("0 values", "1 pure"),
    "3 parts": ("0 values", "1 pure", "2 adapters"),
    "4 edge": ("0 values", "1 pure", "3 parts"),
    "5 wiring": ("0 values", "1 pure", "2 adapters", "3 parts", "4 edge", "client", "devnet"),
    "client": ("0 values", "1 pure"),
    "devnet": ("0 values", "1 pure"),
    "build": ("0 values",),
}

# Imports beside or above the rule, each with its reason in the design.
ALSO: frozenset[tuple[str, str]] = frozenset(
    {
        ("money", "errors"),  # layer 0: each other, in that order
        ("models", "errors"),
        ("models", "money"),
        ("config", "errors"),
        ("config", "money"),
        ("helping", "tasks"),
        ("payments/requirements", "pricing"),
        ("payments/exact", "ledger/*"),  # gate -> exact, channels -> ledger
        ("payments/gate", "ledger/*"),
        ("payments/sessions", "ledger/*"),
        ("payments/channels", "ledger/*"),
        ("settlement/*", "ledger/*"),
        ("housekeeping", "catalog"),  # deletes what the catalog says nobody can buy
        ("intake", "catalog"),
        ("streams", "catalog"),  # whose readers are woken when a segment is listed
        ("recordings", "catalog"),
        ("airing", "streams"),
        ("live", "streams"),
        ("live", "airing"),
        ("pulls", "live"),
        ("pulls", "streams"),
        ("intake", "housekeeping"),
        ("web/*", "store/base"),  # the edge opens bytes
        ("web/*", "store/cache"),
        ("service", "administering"),
        ("administering", "broadcasting"),
        ("admitting", "administering"),
        ("admitting", "service"),
        ("cli/*", "admitting"),
        ("service", "broadcasting"),
        ("service", "charging"),
        ("charging", "clearing"),
        ("charging", "renting"),
        ("settling", "charging"),
        ("settling", "service"),
        ("cli/*", "settling"),
        ("doctor", "charging"),
        ("streaming", "service"),
        ("streaming", "shelving"),
        ("streaming", "broadcasting"),
        ("cli/*", "streaming"),
        ("doctor", "service"),
        ("doctor", "broadcasting"),
        ("shelving", "service"),
        ("demo", "admitting"),
        ("demo", "service"),
        ("demo", "doctor"),
        ("demo", "streaming"),
        ("cli/*", "service"),
        ("cli/*", "doctor"),
        ("auditing", "service"),
        ("cli/*", "auditing"),
        ("cli/*", "shelving"),
        ("cli/*", "paying"),
        ("cli/*", "wallets"),
        ("cli/*", "borrowing"),
        ("borrowing", "paying"),
        ("cli/*", "playing"),
        ("playing", "paying"),
        ("cli/*", "measuring"),
        ("measuring", "paying"),
        ("wallets", "paying"),
        ("cli/*", "demo"),
        ("player/bundle", "devnet/npm"),  # one way to npm, at run time and when it is installed
        ("devnet/facilitator", "payments/sender"),  # one sender of a key, here and in the demo
    }
)

# A narrower rule than its layer's: only these may import what matches.
ONLY: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("db/tables", ("db/*", "ledger/*")),
    ("db/*_sql", ("db/*", "catalog", "streams", "recordings")),
    (
        "db/*",
        (
            "db/*",
            "ledger/*",
            "catalog",
            "streams",
            "recordings",
            "service",
            "administering",
            "broadcasting",
            "charging",
            "clearing",
            "renting",
        ),
    ),
    (
        "client/*",
        ("client/*", "paying", "wallets", "borrowing", "playing", "measuring", "cli/*"),
    ),
    ("devnet/npm", ("devnet/*", "player/bundle")),
    ("devnet/*", ("devnet/*", "demo", "cli/*")),
    ("player/*", ("player/*",)),
    (
        "service",
        ("admitting", "auditing", "doctor", "shelving", "streaming", "settling", "demo", "cli/*"),
    ),
    ("cli/*", ("cli/*",)),
)

# What pure modules do not touch.
IO_MODULES = frozenset(
    {
        "aiofiles", "asyncio", "av", "httpx", "multiprocessing", "select", "selectors", "shutil",
        "signal", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time",
        "urllib.request", "uvicorn", "web3",
    }
)  # fmt: skip

# Who may know a library.
LIBRARIES: dict[str, tuple[str, ...]] = {
    "sqlalchemy": ("db/*", "ledger/*", "catalog", "streams"),
    "alembic": ("db/*",),
    "av": ("media/*", "devnet/*"),
    "web3": (
        "payments/chain",
        "payments/channel_chain",
        "payments/evidence",
        "payments/node",
        "devnet/*",
    ),
    "starlette": ("web/*", "service", "devnet/facilitator", "devnet/faucet"),
    "jinja2": ("web/pages",),
    "uvicorn": ("service", "playing", "web/bounded", "devnet/*"),
    "m3u8": ("media/playlist",),
    "coincurve": ("payments/eip712", "payments/authorizer", "client/*"),
}

KINDS = ("Pure:", "Adapter:", "Part:", "Wiring:")


@cache
def modules() -> dict[str, ast.Module]:
    """The syntax of every module, by its path in the package, packages left out."""
    return {
        file.relative_to(PACKAGE).with_suffix("").as_posix(): ast.parse(file.read_text("utf-8"))
        for file in sorted(PACKAGE.rglob("*.py"))
        if file.name != "__init__.py" and not {"versions", "node_modules"} & {*file.parts}
    }


def imported_names(tree: ast.Module) -> set[str]:
    """Every dotted name a module imports, with the names it takes from packages."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
            found.add(node.module or "")
    return found


@cache
def edges() -> frozenset[tuple[str, str]]:
    """Who imports whom inside the package."""
    found = set()
    for module, tree in modules().items():
        for name in imported_names(tree):
            target = name.removeprefix("xbyte_live.").replace(".", "/")
            if name.startswith("xbyte_live.") and target in modules():
                found.add((module, target))
    return frozenset(found)


def matches(module: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(module, pattern) for pattern in patterns)


def layer(module: str) -> str:
    for pattern, name in LAYERS:
        if fnmatch.fnmatch(module, pattern):
            return name
    raise AssertionError(f"{module} has no row in the layer table")


def folder(module: str) -> str:
    return module.partition("/")[0] if "/" in module else ""


def may_import(module: str, target: str) -> bool:
    if any(matches(module, (one,)) and matches(target, (other,)) for one, other in ALSO):
        return True
    if layer(target) in BELOW[layer(module)]:
        return True
    same_folder = folder(module) == folder(target) != ""
    return same_folder and layer(module) == layer(target)


def is_pure(module: str) -> bool:
    return (ast.get_docstring(modules()[module]) or "").startswith("Pure:")


def test_every_module_has_a_layer() -> None:
    assert {layer(module) for module in modules()} <= set(BELOW)


def test_nobody_imports_what_its_layer_may_not() -> None:
    assert sorted(edge for edge in edges() if not may_import(*edge)) == []


@pytest.mark.parametrize(("target", "importers"), ONLY, ids=[target for target, _ in ONLY])
def test_only_its_own_users_import_it(target: str, importers: tuple[str, ...]) -> None:
    narrower = [pattern for pattern, _ in ONLY[: [t for t, _ in ONLY].index(target)]]
    strangers = [
        edge
        for edge in edges()
        if matches(edge[1], (target,))
        and not matches(edge[1], tuple(narrower))
        and not matches(edge[0], importers)
    ]
    assert sorted(strangers) == []


def test_imports_make_no_cycle() -> None:
    waiting = {module: {to for of, to in edges() if of == module} for module in modules()}
    while ready := [module for module, targets in waiting.items() if not targets]:
        for module in ready:
            del waiting[module]
        for targets in waiting.values():
            targets.difference_update(ready)
    assert waiting == {}


def test_every_module_says_its_kind_first() -> None:
    silent = [
        module
        for module, tree in modules().items()
        if not (ast.get_docstring(tree) or "").startswith(KINDS)
    ]
    assert silent == []


def test_the_lowest_layers_are_pure_and_the_top_is_wiring() -> None:
    for module in modules():
        if layer(module) in ("0 values", "1 pure"):
            assert is_pure(module), module
        kind = (ast.get_docstring(modules()[module]) or "").partition(":")[0]
        assert (kind == "Wiring") == (layer(module) == "5 wiring" or module == "web/app"), module


def test_pure_modules_touch_no_socket_file_clock_or_thread() -> None:
    touching = [
        (module, name)
        for module in modules()
        if is_pure(module)
        for name in imported_names(modules()[module])
        if name in IO_MODULES or name.partition(".")[0] in IO_MODULES
    ]
    assert sorted(touching) == []


def test_pure_modules_import_pure_modules() -> None:
    impure = [
        (module, target) for module, target in edges() if is_pure(module) and not is_pure(target)
    ]
    assert sorted(impure) == []


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_known_where_it_belongs(library: str) -> None:
    strangers = [
        module
        for module, tree in modules().items()
        if any(name.partition(".")[0] == library for name in imported_names(tree))
        and not matches(module, LIBRARIES[library])
    ]
    assert strangers == []


def test_packages_hold_no_code() -> None:
    for file in PACKAGE.rglob("__init__.py"):
        body = ast.parse(file.read_text("utf-8")).body
        doc = [node for node in body if isinstance(node, ast.Expr)]
        code = [node for node in body if not isinstance(node, ast.Expr)]
        assert len(doc) <= 1
        if file.parent == PACKAGE:
            assert [ast.unparse(node).partition(" =")[0] for node in code] == ["__version__"]
        elif file.parent.name == "cli":  # the entry point of the installed program
            assert [ast.unparse(node) for node in code] == [
                "from xbyte_live.cli.program import main as main"
            ]
        else:
            assert code == []


def test_nothing_is_imported_by_name_at_run_time() -> None:
    dynamic = [
        module
        for module, tree in modules().items()
        if any(name.startswith("importlib.import_module") for name in imported_names(tree))
        or "__import__" in {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    ]
    assert dynamic == []


def loaded_by(*names: str) -> set[str]:
    """The top-level packages that importing some modules brings into a fresh interpreter."""
    program = (
        f"import importlib, json, sys\n"
        f"for name in {list(names)!r}: importlib.import_module(name)\n"
        f"print(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(json.loads(run.stdout))


def dotted(*patterns: str) -> list[str]:
    """The importable names of the modules that match."""
    found = [module for module in modules() if matches(module, patterns)]
    return ["xbyte_live." + module.replace("/", ".") for module in found]


def test_the_paying_side_needs_no_media_web_or_database_library() -> None:
    names = dotted("client/*")
    assert names
    unwanted = {"av", "starlette", "uvicorn", "sqlalchemy", "alembic", "psycopg", "web3"}
    assert loaded_by(*names) & unwanted == set()


def test_the_command_line_imports_nothing_heavy_before_it_is_needed() -> None:
    heavy = {"av", "web3", "sqlalchemy", "alembic", "x402", "eth_account", "starlette", "pydantic"}
    assert loaded_by(*dotted("cli/*")) & heavy == set()


def test_pure_layers_need_no_library_of_the_layers_above() -> None:
    names = [
        "xbyte_live." + module.replace("/", ".")
        for module in modules()
        if layer(module) in ("0 values", "1 pure") and module != "payments/methods"
    ]
    unwanted = {"av", "starlette", "uvicorn", "sqlalchemy", "web3", "httpx", "x402"}
    assert loaded_by(*names) & unwanted == set()


def test_the_top_of_the_repository_is_what_was_laid_down() -> None:
    fixed = {
        "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Dockerfile",
        "xbyte_live", "tests", "samples",
    }  # fmt: skip
    ignored = [line.strip("/\n") for line in (ROOT / ".gitignore").read_text().splitlines()]
    found = {
        path.name
        for path in ROOT.iterdir()
        if not path.name.startswith(".") and not matches(path.name, tuple(ignored))
    }
    assert found == fixed
