"""The lock files of the Docker image: ``python -m tests.support.locks`` writes them anew."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / ".docker"
OLDEST = "3.11"

# What each lock is compiled from.
SOURCES: dict[str, Sequence[str]] = {
    "requirements.lock": ("pyproject.toml", "--extra", "postgres"),
    "build.lock": ("--group", "pyproject.toml:build"),
}


def uv(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run uv in the root of the project."""
    return subprocess.run(
        (sys.executable, "-m", "uv", *words),
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


def compile_lock(name: str, into: Path) -> None:
    """Resolve a lock for every platform and Python; versions it holds already are kept."""
    run = uv(
        *("pip", "compile", "--quiet", "--universal", "--python-version", OLDEST),
        *("--generate-hashes", "--no-emit-index-url", "--no-emit-find-links"),
        *("--custom-compile-command", "python -m tests.support.locks"),
        *(*SOURCES[name], "--output-file", str(into)),
    )
    if run.returncode:
        raise RuntimeError(run.stderr)


if __name__ == "__main__":
    LOCKS.mkdir(exist_ok=True)
    for lock in SOURCES:
        compile_lock(lock, LOCKS / lock)
