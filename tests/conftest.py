"""Fixtures every test may use, who runs what, and the rule that nothing is skipped unseen."""

import os
import signal
from collections.abc import Generator
from zlib import crc32

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# Machines are slow at times; what is tested is never how long an example takes.
settings.register_profile("xbyte", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("xbyte")

# A run started in the background ignores Ctrl-C, and so would all it starts, by inheritance. It
# goes on ignoring it, but with a handler: what it starts gets the default back (signal(7)).
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, lambda *_: None)

pytest_plugins = ["tests.support.chain", "tests.support.databases", "tests.support.demo"]

OF_THE_DEMO = ("tests/browser/", "tests/cli/test_demo.py")


class ByFile(LoadScopeScheduling):
    """A file's tests run in one worker; those that use the demo in two, as it is made in each."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = nodeid.partition("::")[0]
        return f"demo {crc32(file.encode()) % 2}" if file.startswith(OF_THE_DEMO) else file


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run what takes many minutes too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes many minutes, unless it is asked for."""
    if not config.getoption("--long"):
        long = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    return ByFile(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under CI a skip hides a missing part, so it is a failure."""
    report = yield
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped under CI: {report.longrepr}"
    return report
