"""Starts and ends background processes on a host, by record; stand-alone: copied to hosts, any Python >= 3.9, no packages.

    python3 hostproc.py start NAME -- COMMAND ...             in the background, a session of its own
    python3 hostproc.py daemon NAME --pid-file F -- COMMAND ...   COMMAND goes to the background by itself
    python3 hostproc.py stop NAME [--grace SECONDS]
    python3 hostproc.py status NAME [--mapped LIBRARY]

Each prints one JSON object.  A record (process id, start time) is kept in /run/odb-testbed; a process is only ever signalled
while it is the one recorded, and what is signalled is its session: everything that it started and that did not leave.
Exit code 0: done; 1: one sentence on standard error.
"""

import argparse
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Optional

DIRECTORY = Path(os.environ.get("ODB_TESTBED_RUN", "/run/odb-testbed"))
PID_FILE_SECONDS = 10.0


class Failure(Exception):
    """One sentence for the user."""


def fields_of(pid: int) -> "Optional[list[str]]":
    """The fields of /proc/PID/stat from the third (state) on; None when there is no such process or it is a zombie."""
    try:
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else fields


def start_time(pid: int) -> "Optional[int]":
    """When the process started, in clock ticks since boot."""
    fields = fields_of(pid)
    return int(fields[19]) if fields else None


def session_members(leader: int, started: int) -> "list[int]":
    """The living processes of the recorded leader's session; none when its number now belongs to another process."""
    if start_time(leader) not in (started, None):
        return []
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = fields_of(int(entry.name))
            if fields and int(fields[3]) == leader and int(fields[19]) >= started:
                members.append(int(entry.name))
    return sorted(members)


def record_path(name: str) -> Path:
    """Where the record of a process lies."""
    return DIRECTORY / f"{name}.json"


def load(name: str) -> "Optional[dict[str, Any]]":
    """The record of a process, None when it was never started or was stopped."""
    try:
        record = json.loads(record_path(name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Failure(f"{record_path(name)} is not a record of a process: {error}") from error
    return dict(record)


def save(name: str, pid: int, command: "list[str]") -> "dict[str, Any]":
    """Record a running process."""
    started = start_time(pid)
    if started is None:
        raise Failure(f"{command[0]} ended at once: {tail(DIRECTORY / f'{name}.err')}")
    record = {"name": name, "pid": pid, "start_time": started, "command": command}
    temporary = record_path(name).with_suffix(".new")
    temporary.write_text(json.dumps(record), encoding="utf-8")
    temporary.replace(record_path(name))
    return record


def tail(path: Path) -> str:
    """The last line of a file."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except FileNotFoundError:
        lines = []
    return lines[-1] if lines else "it said nothing"


def refuse_second(name: str) -> None:
    """A name stands for one process at a time."""
    record = load(name)
    if record and session_members(record["pid"], record["start_time"]):
        raise Failure(f"{name} is running already as process {record['pid']}")


def start(name: str, command: "list[str]") -> "dict[str, Any]":
    """Run a command in the background; its output goes to NAME.out and NAME.err beside the record."""
    DIRECTORY.mkdir(mode=0o755, exist_ok=True)
    refuse_second(name)
    with (DIRECTORY / f"{name}.out").open("wb") as output, (DIRECTORY / f"{name}.err").open("wb") as errors:
        process = launch(command, stdout=output, stderr=errors)
    return save(name, process.pid, command)


def launch(command: "list[str]", **streams: Any) -> "subprocess.Popen[bytes]":
    """Start a command in a session of its own."""
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, cwd="/", **streams)
    except OSError as error:
        raise Failure(f"cannot start {command[0]}: {error.strerror}") from error


def daemon(name: str, pid_file: Path, command: "list[str]") -> "dict[str, Any]":
    """Run a command that puts itself into the background and writes its process id to `pid_file`."""
    DIRECTORY.mkdir(mode=0o755, exist_ok=True)
    refuse_second(name)
    pid_file.unlink(missing_ok=True)
    log = DIRECTORY / f"{name}.err"
    with log.open("wb") as output:
        process = launch(command, stdout=output, stderr=output)
    if process.wait() != 0:
        raise Failure(f"{command[0]} failed with code {process.returncode}: {tail(log)}")
    deadline = time.monotonic() + PID_FILE_SECONDS
    while True:
        try:
            return save(name, int(pid_file.read_text(encoding="ascii")), command)
        except (FileNotFoundError, ValueError):  # not there or not written yet
            if time.monotonic() > deadline:
                raise Failure(f"{command[0]} wrote no process id to {pid_file}: {tail(log)}") from None
            time.sleep(0.005)


def signal_all(members: "list[int]", number: int, seconds: float) -> None:
    """Signal the processes and wait until they have ended, at most `seconds`."""
    handles = {}
    for pid in members:
        try:
            handles[os.pidfd_open(pid)] = pid
        except ProcessLookupError:
            continue
    poll = select.poll()
    for handle in handles:
        poll.register(handle, select.POLLIN)
        try:
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            continue
    deadline = time.monotonic() + seconds
    waiting = set(handles)
    while waiting and time.monotonic() < deadline:
        for handle, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            poll.unregister(handle)
            waiting.discard(handle)
    for handle in handles:
        os.close(handle)


def stop(name: str, grace: float) -> "dict[str, Any]":
    """End a recorded process and its session: politely, then after `grace` seconds for good."""
    record = load(name)
    if record is None:
        return {"name": name, "stopped": False, "killed": False}
    members = session_members(record["pid"], record["start_time"])
    signal_all(members, signal.SIGTERM, grace)
    killed = False
    for _ in range(100):
        left = session_members(record["pid"], record["start_time"])
        if not left:
            record_path(name).unlink(missing_ok=True)
            return {"name": name, "stopped": bool(members), "killed": killed}
        killed = True
        signal_all(left, signal.SIGKILL, 5.0)
    raise Failure(f"{name} does not end: processes {left} are still there")


def status(name: str, library: "Optional[str]") -> "dict[str, Any]":
    """Whether a recorded process runs, and in which processes of its session a library is mapped."""
    record = load(name)
    members = session_members(record["pid"], record["start_time"]) if record else []
    answer = {"name": name, "alive": bool(members), "record": record, "processes": members}
    if library:
        answer["mapped"] = [pid for pid in members if maps(pid, library)]
    return answer


def maps(pid: int, library: str) -> bool:
    """Whether a file of that name is mapped into the process."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return any(line.rpartition("/")[2] == library for line in lines)


def main(arguments: "list[str]") -> int:
    """Do one thing and print what came of it."""
    command: list[str] = []
    if "--" in arguments:
        place = arguments.index("--")
        arguments, command = arguments[:place], arguments[place + 1 :]
    parser = argparse.ArgumentParser(description="Start, end and look at recorded processes.")
    parser.add_argument("action", choices=("start", "daemon", "stop", "status"))
    parser.add_argument("name")
    parser.add_argument("--pid-file", type=Path)
    parser.add_argument("--grace", type=float, default=10.0)
    parser.add_argument("--mapped", metavar="LIBRARY")
    parsed = parser.parse_args(arguments)
    if parsed.action in ("start", "daemon") and not command:
        parser.error("name the command after --")
    try:
        if parsed.action == "start":
            result = start(parsed.name, command)
        elif parsed.action == "daemon":
            if parsed.pid_file is None:
                parser.error("daemon needs --pid-file")
            result = daemon(parsed.name, parsed.pid_file, command)
        elif parsed.action == "stop":
            result = stop(parsed.name, parsed.grace)
        else:
            result = status(parsed.name, parsed.mapped)
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
