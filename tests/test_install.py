"""That the project installs: a wheel for every machine that is named, bounds that hold, locks.

The index is asked, nothing is installed; but with ``--long`` the lowest versions are, in an
environment of their own.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.locks import LOCKS, ROOT, SOURCES, compile_lock, uv

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28", "aarch64-apple-darwin")
MACOS = {"MACOSX_DEPLOYMENT_TARGET": "14.0"}  # the oldest that PyAV's wheels are for
EXTRAS = ("--extra", "demo", "--extra", "postgres", "--extra", "test")

# Suites that use every dependency, and neither a browser nor a database server.
CORE = (
    *("tests/test_config.py", "tests/test_models.py", "tests/test_money.py", "tests/pricing"),
    *("tests/evm", "tests/media/formats", "tests/live/rtmp", "tests/payments/test_exact.py"),
    *("tests/web/playback", "tests/client/payer", "tests/storage/blobs"),
)


def test_what_python_it_says_it_needs_is_what_is_tested() -> None:
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    named = [name.rpartition(" ")[2] for name in PROJECT["classifiers"] if "Python :: 3." in name]
    assert tuple(named) == PYTHONS


@pytest.mark.timeout(400)
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_locked_dependency_has_a_wheel(platform: str, python: str, tmp_path: Path) -> None:
    """What README's commands install, at the versions of the lock where it has one."""
    run = uv(
        *("pip", "compile", "--quiet", "--only-binary", ":all:", *EXTRAS, "pyproject.toml"),
        *("--constraint", str(LOCKS / "requirements.lock"), "--output-file", str(tmp_path / "all")),
        *("--python-platform", platform, "--python-version", python),
        **MACOS,
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("name", SOURCES)
def test_a_lock_is_of_the_dependencies_there_are(name: str, tmp_path: Path) -> None:
    kept = (LOCKS / name).read_text("utf-8")
    again = tmp_path / name
    again.write_text(kept)  # versions that still do are kept
    compile_lock(name, again)
    assert again.read_text("utf-8") == kept, "python -m tests.support.locks"


@pytest.mark.parametrize("name", SOURCES)
def test_a_lock_has_hashes_and_names_no_index(name: str) -> None:
    text = (LOCKS / name).read_text("utf-8")
    assert "://" not in text
    for entry in text.replace("\\\n", " ").splitlines():
        if "==" in entry and not entry.lstrip().startswith("#"):
            assert "--hash=sha256:" in entry, entry


def test_the_image_installs_by_hash_before_it_copies_the_source() -> None:
    lines = (ROOT / "Dockerfile").read_text("utf-8").splitlines()
    (copied,) = [at for at, line in enumerate(lines) if line.startswith("COPY xbyte_live")]
    for name in SOURCES:
        (installed,) = [at for at, line in enumerate(lines) if f".docker/{name}" in line]
        assert installed < copied
        assert "--require-hashes" in lines[installed]
    for line in lines[copied:]:
        assert "pip " not in line or "--no-deps" in line


def test_what_builds_the_image_is_what_builds_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    needed = [one.partition(";")[0] for one in project["build-system"]["requires"]]
    assert project["dependency-groups"]["build"] == needed


def lowest(into: Path) -> None:
    run = uv(
        *("pip", "compile", "--quiet", "--resolution", "lowest-direct", *EXTRAS, "pyproject.toml"),
        *("--python-version", PYTHONS[0], "--only-binary", ":all:", "--output-file", str(into)),
    )
    assert run.returncode == 0, run.stderr


def test_the_lowest_versions_go_together(tmp_path: Path) -> None:
    lowest(tmp_path / "lowest.txt")
    pinned = (tmp_path / "lowest.txt").read_text()
    assert "starlette==1.0" in pinned  # the bound itself, not what is newest


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_the_lowest_versions_work(tmp_path: Path) -> None:
    lowest(tmp_path / "lowest.txt")
    env = tmp_path / "env"
    for words in (
        ("venv", "--quiet", "--python", f"{sys.version_info[0]}.{sys.version_info[1]}", str(env)),
        ("pip", "install", "--quiet", "--python", str(env), "-r", str(tmp_path / "lowest.txt")),
    ):
        run = uv(*words)
        assert run.returncode == 0, run.stderr
    run = subprocess.run(
        (env / "bin" / "python", "-m", "pytest", "-q", "-n", "2", *CORE),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-4000:]
