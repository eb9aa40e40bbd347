"""What every test stands on: a clean environment, and no test that is quietly skipped in CI."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is slow, and no test is wrong for that.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

_CHANGES_RESULTS = ("COMFYSERVE_", "FORCE_COLOR", "NO_COLOR", "COLUMNS", "LINES", "XDG_")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def pytest_configure() -> None:
    """Let Ctrl-C be heard: a shell's background job, such as a CI step may be, ignores it, and so
    would every process that a test starts and interrupts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Take away what the person's own settings, terminal and home would change in a test."""
    home = str(tmp_path_factory.mktemp("home"))
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.upper().startswith(_CHANGES_RESULTS) or name.lower() in _PROXIES:
                patch.delenv(name)
        for name in ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"):
            patch.setenv(name, home)
        patch.setenv("TERM", "dumb")
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where CI is set, a skipped test and an expected failure count as failures."""
    report = yield
    if report.skipped and _is_ci():
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and CI is set: {call.excinfo}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Where CI is set, a module that skips itself counts as a failure."""
    report = yield
    if report.skipped and _is_ci():
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} was skipped, and CI is set: {report.longrepr}"
    return report


def _is_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("true", "1")
