"""The state file: recorded before created, replaced at once, one command at a time, nothing left when nothing is deployed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.errors import StateError
from testbed.spec import Topology
from testbed.state import CREATED, PLANNED, Resource, State, StateStore


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(tmp_path / "new" / "state.json")


def test_state_survives_the_file(store: StateStore) -> None:
    state = State.fresh("10.0.0.0/24", Topology(tiers=2))
    with store.lock():
        record = store.plan(state, Resource("link", "x", "fe", details={"a": 1}))
        assert store.load() == state
        assert state.resources[0].status == PLANNED
        store.created(state, record)
        read = store.load()
    assert read == state
    assert read is not None
    assert read.resources[0].status == CREATED


def test_planning_again_what_is_known_makes_no_second_record(store: StateStore) -> None:
    state = State.fresh("10.0.0.0/24", Topology())
    with store.lock():
        store.created(state, store.plan(state, Resource("link", "x")))
        store.plan(state, Resource("link", "x"))
    assert [record.status for record in state.resources] == [PLANNED]


def test_writing_needs_the_lock(store: StateStore) -> None:
    with pytest.raises(RuntimeError, match="lock"):
        store.save(State.fresh("10.0.0.0/24", Topology()))


def test_other_process_is_refused_and_told_who_has_the_lock(store: StateStore) -> None:
    code = (
        "import sys; from pathlib import Path; from testbed.state import StateStore; from testbed.errors import StateError\n"
        "try:\n"
        "    with StateStore(Path(sys.argv[1])).lock(): print('had it')\n"
        "except StateError as error: print(error)\n"
    )
    run = [sys.executable, "-c", code, str(store.path)]
    with store.lock(), StateStore(store.path).lock():
        during = subprocess.run(run, capture_output=True, text=True, timeout=30).stdout
    after = subprocess.run(run, capture_output=True, text=True, timeout=30).stdout
    assert during.startswith("another command (process ")
    assert after == "had it\n"


def test_nothing_is_left_when_nothing_was_deployed(store: StateStore, tmp_path: Path) -> None:
    with store.lock():
        assert store.lock_path.exists()
    assert list(tmp_path.iterdir()) == []


def test_directory_that_was_there_before_is_kept(tmp_path: Path) -> None:
    directory = tmp_path / "mine"
    directory.mkdir()
    with StateStore(directory / "state.json").lock():
        pass
    assert list(tmp_path.iterdir()) == [directory]


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"schema": 1}', '{"schema": 2}', '{"schema": 1, "identity": "a"}', "\xff"],
)
def test_file_that_is_no_state_is_refused_by_name(content: str, tmp_path: Path) -> None:
    store = StateStore(tmp_path / "state.json")
    store.path.write_bytes(content.encode("latin-1"))
    with pytest.raises(StateError) as caught:
        store.load()
    assert str(store.path) in str(caught.value)
    assert caught.value.remedy


def test_state_with_a_value_of_the_wrong_kind_is_refused(store: StateStore) -> None:
    with store.lock():
        store.save(State.fresh("10.0.0.0/24", Topology()))
        plain = json.loads(store.path.read_text())
        plain["topology"]["tiers"] = "one"
        store.path.write_text(json.dumps(plain))
        with pytest.raises(StateError, match="cannot be used"):
            store.load()
        store.remove()


def test_absent_state_is_no_error(store: StateStore) -> None:
    assert not store.exists()
    assert store.load() is None
