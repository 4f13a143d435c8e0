"""What a deployment starts ends with it, also where hangups are ignored."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from testbed.deploy import hangup_ends_children

pytestmark = pytest.mark.unit

_ASK = "import signal; print(signal.getsignal(signal.SIGHUP).name)"


@pytest.fixture
def nohup() -> Iterator[None]:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


def asked() -> str:
    """What a new process does when its terminal goes."""
    return subprocess.run(
        [sys.executable, "-c", _ASK], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.usefixtures("nohup")
def test_children_end_with_their_terminal_while_their_parent_goes_on() -> None:
    assert asked() == "SIG_IGN"
    with hangup_ends_children():
        assert asked() == "SIG_DFL"
        signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_a_handler_of_somebody_else_stays() -> None:
    before = signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        with hangup_ends_children():
            assert signal.getsignal(signal.SIGHUP) == signal.default_int_handler
    finally:
        signal.signal(signal.SIGHUP, before)
