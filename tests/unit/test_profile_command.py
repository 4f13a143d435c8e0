"""The profile command without a deployment: what it refuses, in one sentence each."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.cli import main

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing"], "there is no variant 'nothing'"),
        (["vanilla", "--set", "coalesce=off"], "vanilla is without the library"),
        (["odb", "--set", "coalesce"], "write it as key=value"),
        (["odb", "--payload", "much"], "--payload 'much'"),
        (["odb", "--seconds", "0"], "--seconds is 0.0"),
        (["odb", "--buffer-size", "5k"], "buffer size"),
        (["odb", "--tiers", "99"], "tiers"),
    ],
)
def test_what_cannot_be_profiled_is_refused(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ODB_TESTBED_STATE", str(tmp_path / "state.json"))
    assert main(["profile", *words, "--results", str(tmp_path / "results")]) == 2
    text = capsys.readouterr().err
    assert said in text and text.count("\n") == 1 and "Traceback" not in text
    assert not (tmp_path / "results").exists()
