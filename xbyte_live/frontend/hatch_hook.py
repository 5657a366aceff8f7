"""Adapter: the build hook of Hatch that bundles the scripts of the pages into the wheel."""

import subprocess
import sys
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PagesBuildHook(BuildHookInterface[BuilderConfig]):
    """Bundles the pages before a wheel is built; where that fails, warns and installs the rest."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Run the bundler in a process that can import the project."""
        built = subprocess.run(
            (sys.executable, "-m", "xbyte_live.frontend.bundle"),
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if built.returncode != 0:
            self.app.display_warning(
                f"the pages are left out of this installation: {built.stderr.strip()}"
            )
