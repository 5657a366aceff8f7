"""Adapter: has the scripts of the pages built before the wheel is, also an editable one."""

import subprocess
import sys
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PagesBuildHook(BuildHookInterface[BuilderConfig]):
    """Hatch's build hook; what cannot be built is said, and the rest is installed."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Run the build where the project's own modules can be imported."""
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
