"""The frontend's sources with their npm packages in a folder, and running scripts there."""

import asyncio
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import xbyte_live.frontend
from xbyte_live.devnet import npm

FRONTEND = Path(xbyte_live.frontend.__file__).parent
_LEFT_OUT = shutil.ignore_patterns("node_modules", "__pycache__", "*.py")


def frontend_workspace(folder: Path) -> Path:
    """A copy of the frontend in which its scripts run; blocking, and long where npm must fetch."""
    lock = json.loads((FRONTEND / "package-lock.json").read_text())
    modules = npm.install("frontend", lock)
    copy = Path(shutil.copytree(FRONTEND, folder / "frontend", ignore=_LEFT_OUT))
    (copy / "node_modules").symlink_to(modules, target_is_directory=True)
    return copy


async def run_script(workspace: Path, *command: str, env: Mapping[str, str] | None = None) -> str:
    """What `npm run …` says there; it must end well."""
    tools = npm.node_tools()
    path = os.pathsep.join((str(Path(tools.node).parent), os.environ.get("PATH", os.defpath)))
    process = await asyncio.create_subprocess_exec(
        *tools.npm,
        *command,
        cwd=workspace,
        env={**os.environ, "PATH": path, "NO_COLOR": "1", **(env or {})},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, said.decode()
    return said.decode()
