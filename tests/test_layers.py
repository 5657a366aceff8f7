"""Who may import whom: the table of the design, held over every import of every module.

Imports inside functions count like any other. A room without a row in ``ROOMS`` fails.
"""

import ast
import fnmatch
import json
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "xbyte_live"

# The values every part speaks, in the order in which they may import each other.
VALUES = ("errors", "money", "models", "config")

# Who may import whom: rooms from the bottom up, each with the rooms below that it may use besides
# the values. A room may use itself.
ROOMS: dict[str, tuple[str, ...]] = {
    "pricing": (),
    "runtime": (),
    "evm": ("pricing", "runtime"),
    "storage": ("pricing", "runtime"),
    "media": ("pricing", "runtime"),
    "catalog": ("pricing", "runtime", "media", "storage"),
    "payments": ("pricing", "runtime", "evm", "storage"),
    "client": ("pricing", "runtime", "evm", "media/formats/playlist"),
    "devnet": ("pricing", "runtime", "evm"),
    "frontend": ("devnet/npm",),
    "live": ("pricing", "runtime", "media", "storage", "catalog"),
    "web": (
        *("pricing", "runtime", "catalog", "live", "payments"),
        *("storage/blobs", "storage/coordination", "media/formats/playlist"),
    ),
    "server": (
        *("pricing", "runtime", "evm", "storage", "media"),
        *("catalog", "payments", "live", "web"),
    ),
    "cli": (
        *("pricing", "runtime", "evm", "storage", "media", "catalog", "payments", "client"),
        *("devnet", "live", "web", "server"),
    ),
    "__main__": ("cli",),
}  # fmt: skip

# A folder holds so many modules at most; a reader takes in no longer listing.
FOLDER_HOLDS = 16

# What pure modules do not touch.
IO_MODULES = frozenset(
    {
        "aiofiles", "asyncio", "av", "httpx2", "multiprocessing", "select", "selectors", "shutil",
        "signal", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time",
        "urllib.request", "uvicorn", "web3",
    }
)  # fmt: skip

# Who may know a library.
LIBRARIES: dict[str, tuple[str, ...]] = {
    "sqlalchemy": ("storage/*", "catalog/*", "payments/*"),
    "alembic": ("storage/db/*",),
    "av": ("media/*", "devnet/*"),
    "web3": ("evm/*", "devnet/*"),
    "starlette": ("web/*", "server/*", "devnet/facilitator", "devnet/faucet"),
    "jinja2": ("web/pages/pages",),
    "uvicorn": ("server/*", "cli/play", "web/common/http_protocol", "devnet/*"),
    "m3u8": ("media/formats/playlist",),
    "markdown_it": ("web/pages/markdown",),
    "btclib_libsecp256k1": ("evm/eip712",),
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


def room(module: str) -> str:
    return module.partition("/")[0]


def may_import(module: str, target: str) -> bool:
    if module in VALUES:
        return target in VALUES[: VALUES.index(module)]
    below = ROOMS[room(module)]
    return (
        target in VALUES
        or room(target) == room(module)
        or any(target == one or target.startswith(f"{one}/") for one in below)
    )


def is_pure(module: str) -> bool:
    return (ast.get_docstring(modules()[module]) or "").startswith("Pure:")


def test_nobody_imports_what_its_room_may_not() -> None:
    assert sorted(edge for edge in edges() if not may_import(*edge)) == []


def without_ends(waiting: dict[str, set[str]]) -> dict[str, set[str]]:
    """What is left of a graph when whoever waits for nothing has gone, again and again."""
    while ready := [name for name, targets in waiting.items() if not targets]:
        for name in ready:
            del waiting[name]
        for targets in waiting.values():
            targets.difference_update(ready)
    return waiting


def test_imports_make_no_cycle() -> None:
    assert without_ends({m: {to for of, to in edges() if of == m} for m in modules()}) == {}


def test_folders_make_no_cycle() -> None:
    folder = {module: module.rpartition("/")[0] for module in modules() if "/" in module}
    inside = [(folder[of], folder[to]) for of, to in edges() if of in folder and to in folder]
    assert (
        without_ends(
            {
                name: {to for of, to in inside if of == name and to != name}
                for name in folder.values()
            }
        )
        == {}
    )


def test_a_folder_is_a_short_listing() -> None:
    held = Counter(module.rpartition("/")[0] for module in modules())
    assert [folder for folder, count in held.items() if count > FOLDER_HOLDS] == []


def test_no_two_public_classes_have_one_name() -> None:
    named = Counter(
        node.name
        for tree in modules().values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert sorted(name for name, count in named.items() if count > 1) == []


def test_every_module_says_its_kind_first() -> None:
    silent = [
        module
        for module, tree in modules().items()
        if not (ast.get_docstring(tree) or "").startswith(KINDS)
    ]
    assert silent == []


def test_values_and_prices_are_pure() -> None:
    assert [m for m in modules() if (m in VALUES or room(m) == "pricing") and not is_pure(m)] == []


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
                "from xbyte_live.cli.main import main as main"
            ]
        elif file.parent == PACKAGE / "client":  # what programs import, loaded once asked for
            assert [ast.unparse(node) for node in code if isinstance(node, ast.Assign)] == [
                "__all__ = ['Budget', 'Payer', 'PayingTransport']"
            ]
            assert [node.name for node in code if isinstance(node, ast.FunctionDef)] == [
                "__getattr__"
            ]
        else:
            assert code == []


def test_nothing_but_a_command_is_imported_by_name_at_run_time() -> None:
    dynamic = [
        module
        for module, tree in modules().items()
        if any(
            name == "importlib" or name.startswith("importlib.import_module")
            for name in imported_names(tree)
        )
        or "__import__" in {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    ]
    assert dynamic == ["cli/main"]


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
    assert loaded_by("xbyte_live.cli.main") & heavy == set()


def test_pure_modules_need_no_library_of_the_rooms_above() -> None:
    names = [
        "xbyte_live." + module.replace("/", ".")
        for module in modules()
        if is_pure(module)
        and room(module) not in ("storage", "catalog", "web")  # rows and answers are values there
        and module != "payments/x402/methods"
    ]
    unwanted = {"av", "starlette", "uvicorn", "sqlalchemy", "web3", "httpx2", "x402"}
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
