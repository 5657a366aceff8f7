"""Fixtures every test may use, and the rule that nothing is skipped unseen."""

import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

# Machines are slow at times; what is tested is never how long an example takes.
settings.register_profile("xbyte", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("xbyte")

pytest_plugins = ["tests.support.chain", "tests.support.databases"]


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
