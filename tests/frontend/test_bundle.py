"""The wheel: with the pages built into it, or without them and with a sentence that says so."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.small_package import SMALL
from xbyte_live.errors import DevnetError
from xbyte_live.frontend import bundle

ROOT = Path(__file__).parents[2]
BUILD = """\
import 'js-sha3';
import { mkdirSync, writeFileSync } from 'node:fs';
import { words } from './src/words.js';
const out = process.argv[3];
mkdirSync(out);
writeFileSync(`${out}/watch.js`, words);
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project without its tests, as somebody gets it who has never built anything."""
    copy = tmp_path_factory.mktemp("build") / "tree"
    made = shutil.ignore_patterns("node_modules", "static", "__pycache__")
    shutil.copytree(ROOT / "xbyte_live", copy / "xbyte_live", ignore=made)
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", ".gitignore"):
        shutil.copyfile(ROOT / name, copy / name)
    return copy


def wheel(tree: Path, out: Path, **environment: str) -> tuple[set[str], str]:
    """Build the wheel; what is in it, and what was said."""
    command = ("pip", "wheel", "-v", "--no-deps", "--no-build-isolation", "-w", str(out), str(tree))
    run = subprocess.run(
        (sys.executable, "-m", *command),
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    (file,) = out.glob("xbyte_live-*.whl")
    with zipfile.ZipFile(file) as opened:
        return set(opened.namelist()), run.stdout + run.stderr


def test_the_wheel_has_the_built_pages_and_not_their_sources(tree: Path, tmp_path: Path) -> None:
    names, said = wheel(tree, tmp_path)

    assert "the pages are left out" not in said
    built = {name for name in names if name.startswith("xbyte_live/web/static/")}
    pages = {"home.js", "watch.js", "studio.js", "pages.css", "xbyte-hls.d.ts"}
    assert pages | {"xbyte-hls.js", "xbyte-hls.global.js"} <= {Path(name).name for name in built}
    assert not [name for name in names if name.startswith("xbyte_live/frontend/")]
    assert not [name for name in names if name.endswith((".ts.map", ".js.map", ".css.map"))]
    assert not [name for name in names if "node_modules" in name]
    assert [name for name in names if name.startswith("xbyte_live/web/templates/")]
    assert "xbyte_live/docs/index.md" in names


def test_the_source_distribution_has_the_sources_and_not_what_is_built(
    tree: Path, tmp_path: Path
) -> None:
    (tree / "xbyte_live/web/static").mkdir(exist_ok=True)
    (tree / "xbyte_live/web/static/watch.js").touch()
    (tree / "xbyte_live/frontend/node_modules").mkdir(exist_ok=True)
    (tree / "xbyte_live/frontend/node_modules/some.js").touch()
    command = (sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path))
    subprocess.run(command, cwd=tree, capture_output=True, check=True)
    (file,) = tmp_path.glob("xbyte_live-*.tar.gz")
    with tarfile.open(file) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}

    assert {"pyproject.toml", "xbyte_live/frontend/hatch_hook.py"} <= names
    assert {f"xbyte_live/frontend/{name}" for name in ("build.mjs", "package-lock.json")} <= names
    assert [name for name in names if name.startswith("xbyte_live/frontend/src/")]
    assert not [name for name in names if "/static/" in name or "node_modules" in name]


def test_without_npm_it_is_installed_all_the_same_and_says_what_is_missing(
    tree: Path, tmp_path: Path
) -> None:
    shutil.rmtree(tree / "xbyte_live/web/static", ignore_errors=True)

    names, said = wheel(
        tree,
        tmp_path / "out",
        XDG_CACHE_HOME=str(tmp_path / "cache"),
        npm_config_cache=str(tmp_path / "cache of npm"),
        npm_config_registry="http://127.0.0.1:9/",
        npm_config_fetch_retries="0",
    )

    assert "xbyte_live/web/app.py" in names
    assert not [name for name in names if name.startswith("xbyte_live/web/static/")]
    assert "the pages are left out of this installation: npm could not fetch" in said
    assert "check that npm reaches its registry" in said


def test_the_lock_names_no_registry() -> None:
    lock = json.loads((bundle.FRONTEND / "package-lock.json").read_text())

    assert [name for name, package in lock["packages"].items() if "resolved" in package] == []
    assert all("integrity" in package for name, package in lock["packages"].items() if name)


@pytest.fixture
def frontend(tmp_path: Path) -> Path:
    """A frontend of a few lines, which needs a package of a few kilobytes."""
    folder = tmp_path / "frontend"
    (folder / "src").mkdir(parents=True)
    (folder / "package-lock.json").write_text(json.dumps(SMALL))
    (folder / "package.json").write_text(json.dumps(SMALL["packages"][""]))
    for name in ("tsconfig.json", "tsconfig.types.json"):
        (folder / name).write_text("{}")
    (folder / "src" / "words.js").write_text("export const words = 'one';\n")
    (folder / "build.mjs").write_text(BUILD)
    return folder


@pytest.fixture
def build(frontend: Path, tmp_path: Path) -> Callable[[], bool]:
    """Builds it."""
    return lambda: bundle.build(frontend, tmp_path / "static", tmp_path / "cache")


def test_it_is_built_again_when_a_source_has_changed(
    build: Callable[[], bool], frontend: Path, tmp_path: Path
) -> None:
    assert build()
    assert not build()
    (tmp_path / "static" / "old.js").touch()
    (frontend / "src" / "words.js").write_text("export const words = 'two';\n")
    assert build()

    assert (tmp_path / "static" / "watch.js").read_text() == "two"
    assert {path.name for path in (tmp_path / "static").iterdir()} == {"watch.js", bundle.STAMP}
    assert {path.name for path in tmp_path.iterdir()} == {"frontend", "static", "cache"}
    assert not (frontend / "node_modules").exists()


def test_what_was_built_stays_when_the_sources_do_not_build(
    build: Callable[[], bool], frontend: Path, tmp_path: Path
) -> None:
    build()
    (frontend / "src" / "words.js").write_text("const;\n")

    with pytest.raises(DevnetError, match=r"do not build: (?s:.*)SyntaxError"):
        build()

    assert (tmp_path / "static" / "watch.js").read_text() == "one"
    assert {path.name for path in tmp_path.iterdir()} == {"frontend", "static", "cache"}


def test_builds_at_the_same_time_are_one(build: Callable[[], bool], tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: build(), range(4)))

    assert sorted(done) == [False, False, False, True]
    assert (tmp_path / "static" / "watch.js").read_text() == "one"
    assert {path.name for path in tmp_path.iterdir()} == {"frontend", "static", "cache"}


def test_a_build_that_dies_while_it_replaces_leaves_nothing_for_good(
    build: Callable[[], bool], frontend: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build()
    source = frontend / "src" / "words.js"
    source.write_text("export const words = 'two';\n")
    rename = Path.rename

    def die(path: Path, target: Path) -> Path:
        if target == tmp_path / "static":
            # as a killed process does: nothing of it runs any more
            monkeypatch.setattr(bundle.shutil, "rmtree", lambda *_, **__: None)
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", die)
    with pytest.raises(KeyboardInterrupt):
        build()
    monkeypatch.undo()
    assert not (tmp_path / "static").exists()

    source.write_text("const;\n")
    with pytest.raises(DevnetError):
        build()
    assert (tmp_path / "static" / "watch.js").read_text() == "one"  # as it was before
    assert {path.name for path in tmp_path.iterdir()} == {"frontend", "static", "cache"}
