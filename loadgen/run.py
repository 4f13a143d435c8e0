"""One run from its first client to its result, in Locust's three roles: alone, master and worker.

A run is over when every client has made its requests. Alone, the process sees that itself. Otherwise each worker
tells the master how many of its clients have finished; when all have, the master asks every worker for its counts,
adds them up and ends the run. Workers also put their counts into Locust's regular reports, so that a run that is
interrupted has a result too.
"""

from __future__ import annotations

import functools
import logging
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from locust import argument_parser

from loadgen import preflight, result
from loadgen.dispatcher import EvenDispatcher
from loadgen.options import LoadOptions, OptionError, add_arguments, parse
from loadgen.preflight import EXIT_FAILURE, EXIT_USAGE, PreflightError
from loadgen.shape import Schedule
from loadgen.users import LATE
from loadgen.verify import Verifier

logger = logging.getLogger(__name__)

EXIT_INTERRUPTED = 130

# How long the master waits for the workers' last counts, in seconds.
COLLECT_TIMEOUT = 15.0

# Between the arrival of the last client and the first request of clients that begin together.
SETTLING_SECONDS = 0.3

# Messages between workers and master, and the options that carry the run's name, its clients and the seconds in which
# they arrive to the workers.
FINISHED = "odb_finished"
COLLECT = "odb_collect"
COUNTS = "odb_counts"
ABORT = "odb_abort"
RUN_NAME = "odb_run"
ALL_CLIENTS = "odb_clients"
ARRIVAL = "odb_arrival"


@dataclass(slots=True)
class _State:
    """What is known of one run; `finished` counts this process's clients, `snapshots` are by worker."""

    name: str
    begun: bool = False
    requesting: bool = False
    tally: result.Tally = field(default_factory=result.Tally)
    started: int = 0
    finished: int = 0
    finished_by_worker: dict[str, int] = field(default_factory=dict)
    snapshots: dict[str, dict[str, Any]] = field(default_factory=dict)
    all_counted: Event = field(default_factory=Event)
    completing: bool = False
    stopping: bool = False
    concluded: bool = False
    failure: str | None = None
    last_success: float = field(default_factory=time.monotonic)


class Run:
    """The current run of this process. The web page may make several, one after the other."""

    options: LoadOptions
    verifier: Verifier

    def __init__(self, events: Any) -> None:
        self.active = False
        self.beginning = 0.0
        self._environment: Any = None
        self._role = "local"
        self._descriptor_limit = 0
        self._summary: str | None = None
        self._state = _State("")
        events.init_command_line_parser.add_listener(lambda parser, **_: add_arguments(parser))
        events.init.add_listener(self._on_init)
        events.test_start.add_listener(self._on_test_start)
        events.test_stopping.add_listener(self._on_test_stopping)
        events.test_stop.add_listener(self._on_test_stop)
        events.request.add_listener(self._on_request)
        events.report_to_master.add_listener(self._on_report_to_master)
        events.worker_report.add_listener(self._on_worker_report)
        events.quitting.add_listener(self._on_quitting)
        events.quit.add_listener(self._on_quit)

    # What the clients call.

    def client_started(self) -> int:
        """A client begins; returns its number in this process, from 0."""
        if self._state.started == 0:
            self.beginning = time.perf_counter() + self._seconds_to_arrive()
            self._state.last_success = time.monotonic()
        self._state.started += 1
        return self._state.started - 1

    def request_begins(self) -> None:
        """A client sends a request; what was used before the first one was used for waiting."""
        if not self._state.requesting:
            self._state.requesting = True
            self._state.tally.begin_cpu()

    def schedule(self, number: int) -> Schedule | None:
        """When the requests of a client of this process are due; None without a rate."""
        rate = self.options.rate
        if rate is None:
            return None
        process = getattr(self._environment.runner, "worker_index", 0) if self._role == "worker" else 0
        return Schedule(rate, self._all_clients(), number, process)

    def client_finished(self) -> None:
        """A client has made all of its requests."""
        if not self.active:
            return
        self._state.finished += 1
        self._state.tally.end_cpu()
        if self._role == "worker":
            self._send(FINISHED, {"clients": self._state.finished})
        elif self._state.finished >= self._environment.runner.target_user_count:
            gevent.spawn(self._complete)

    # Locust's events.

    def _on_init(self, environment: Any, runner: Any, **_: Any) -> None:
        self._environment = environment
        environment.dispatcher_class = EvenDispatcher
        name = type(runner).__name__
        self._role = {"MasterRunner": "master", "WorkerRunner": "worker"}.get(name, "local")
        self._descriptor_limit = preflight.raise_descriptor_limit()
        if self._role == "master":
            runner.register_message(FINISHED, self._on_finished)
            runner.register_message(COUNTS, self._on_counts)
            runner.register_message(ABORT, self._on_abort)
        if self._role == "worker":
            runner.register_message(COLLECT, self._on_collect)
            _remember_default_arguments()
        elif environment.parsed_options.headless:
            self._check_command_line()

    def _check_command_line(self) -> None:
        try:
            options = parse(self._environment.parsed_options)
            preflight.check_host(self._environment.host)
            if options.result is not None and not Path(options.result).absolute().parent.is_dir():
                raise OptionError(f"--result {options.result}: its directory does not exist; create it first")
        except (OptionError, PreflightError) as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(EXIT_USAGE)

    def _on_test_start(self, environment: Any, **_: Any) -> None:
        parsed = environment.parsed_options
        environment.process_exit_code = None
        if self._role == "master":
            # Locust hands unknown options on to the workers: so they learn which run they are in.
            setattr(parsed, RUN_NAME, uuid.uuid4().hex)
            setattr(parsed, ALL_CLIENTS, int(environment.runner.target_user_count))
            setattr(parsed, ARRIVAL, self._seconds_to_arrive())
        self._state = _State(getattr(parsed, RUN_NAME, ""), begun=True)
        try:
            self.options = parse(parsed)
            if self._role != "master":
                self._prepare(environment)
        except OptionError as error:
            self._fail(str(error), EXIT_USAGE)
        except PreflightError as error:
            self._fail(str(error), error.exit_code)
        else:
            self.active = True
            gevent.spawn(self._watch, self._state)

    def _prepare(self, environment: Any) -> None:
        preflight.check_descriptors(self._clients_here(), self._descriptor_limit)
        host = preflight.check_host(environment.host)
        environment.host = host
        preflight.check_reachable(host, self.options.connect_timeout)
        self.verifier = Verifier(self.options.check, preflight.expected_digests(host, self.options))

    def _clients_here(self) -> int:
        """Clients that this process will have; a worker started by hand cannot know and answers 0."""
        if self._role == "local":
            return int(self._environment.runner.target_user_count)
        parsed = self._environment.parsed_options
        return -(-int(parsed.num_users) // int(parsed.processes)) if parsed.processes else 0

    def _all_clients(self) -> int:
        """Clients of all processes together."""
        if self._role == "worker":
            return int(getattr(self._environment.parsed_options, ALL_CLIENTS))
        return int(self._environment.runner.target_user_count)

    def _seconds_to_arrive(self) -> float:
        """How long the clients take to arrive, and a little: no request at a rate is due before all are there."""
        parsed = self._environment.parsed_options
        if self._role == "worker":
            return float(getattr(parsed, ARRIVAL))
        return self._all_clients() / float(parsed.spawn_rate or 1) + SETTLING_SECONDS

    def _on_request(
        self,
        start_time: float,
        response_time: float,
        response_length: int,
        exception: Any = None,
        context: Any = None,
        **_: Any,
    ) -> None:
        # A request that had to wait for its client counts from when it was due: the server made it wait.
        late = float((context or {}).get(LATE, 0.0))
        self._state.tally.record(
            start_time=start_time - late,
            response_ms=response_time + late * 1000,
            body_bytes=response_length,
            error=exception,
        )
        if exception is None:
            self._state.last_success = time.monotonic()

    def _on_test_stopping(self, **_: Any) -> None:
        # Stopped on the web page: the workers now leave on purpose.
        self._state.stopping = not self._environment.parsed_options.headless

    def _on_test_stop(self, **_: Any) -> None:
        self.active = False
        if self._role != "worker" and not self._environment.parsed_options.headless:
            self._conclude()

    def _on_report_to_master(self, data: dict[str, Any], **_: Any) -> None:
        if self._state.begun:
            data[COUNTS] = self._counts()

    def _on_worker_report(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        self._accept(client_id, data.get(COUNTS))

    def _on_quitting(self, **_: Any) -> None:
        # Locust's master has the workers' last reports by now: its own listener came later and so ran before.
        if self._role != "worker":
            self._conclude()

    def _on_quit(self, **_: Any) -> None:
        if self._summary is not None:
            print(self._summary, flush=True)

    # Messages.

    def _send(self, kind: str, data: dict[str, Any]) -> None:
        self._environment.runner.send_message(kind, {RUN_NAME: self._state.name, **data})

    def _on_finished(self, msg: Any, **_: Any) -> None:
        if msg.data[RUN_NAME] != self._state.name:
            return
        self._state.finished_by_worker[msg.node_id] = msg.data["clients"]
        if sum(self._state.finished_by_worker.values()) >= self._environment.runner.target_user_count:
            gevent.spawn(self._complete)

    def _on_collect(self, **_: Any) -> None:
        self._environment.runner.send_message(COUNTS, self._counts())

    def _on_counts(self, msg: Any, **_: Any) -> None:
        self._accept(msg.node_id, msg.data)

    def _on_abort(self, msg: Any, **_: Any) -> None:
        if msg.data[RUN_NAME] == self._state.name:
            self._fail(msg.data["reason"], msg.data["exit_code"])

    def _counts(self) -> dict[str, Any]:
        return {RUN_NAME: self._state.name, "snapshot": self._state.tally.snapshot()}

    def _accept(self, worker: str, counts: dict[str, Any] | None) -> None:
        if counts is None or not self._state.begun or counts[RUN_NAME] != self._state.name:
            return
        # Counts are cumulative, so a later report replaces an earlier one.
        self._state.snapshots[worker] = counts["snapshot"]
        if result.merge(self._state.snapshots.values()).requests >= self._expected():
            self._state.all_counted.set()

    # The end.

    def _expected(self) -> int:
        return int(self._environment.runner.target_user_count) * self.options.requests_per_user

    def _complete(self) -> None:
        """Every client has finished: gather the counts, write the result, end the run."""
        if self._state.completing:
            return
        self._state.completing = True
        if self._role == "master":
            self._environment.runner.send_message(COLLECT)
            self._state.all_counted.wait(COLLECT_TIMEOUT)
        self._conclude()
        self._end()

    def _end(self) -> None:
        """Quit, or with the web page stop the test, unless the page was asked to quit by itself."""
        self.active = False
        parsed = self._environment.parsed_options
        if parsed.headless:
            self._environment.runner.quit()
            return
        self._environment.runner.stop()
        logger.info("The test has stopped; the page can start another")
        if parsed.autostart and parsed.autoquit != -1:
            gevent.sleep(parsed.autoquit)
            self._environment.runner.quit()
            if self._environment.web_ui is not None:
                self._environment.web_ui.stop()

    def _fail(self, reason: str, exit_code: int) -> None:
        """End the run without a result: here, or on the master that started it."""
        self.active = False
        if self._state.failure is not None:
            return
        self._state.failure = reason
        if self._role == "worker":
            self._send(ABORT, {"reason": reason, "exit_code": exit_code})
            return
        self._environment.process_exit_code = exit_code
        if self._environment.parsed_options.headless:
            print(f"error: {reason}", file=sys.stderr, flush=True)
        else:
            logger.error(reason)
        gevent.spawn(self._end)

    def _conclude(self) -> None:
        """Turn the counts into the result and the exit code, once per run."""
        if self._state.concluded or not self._state.begun or self._state.failure is not None:
            return
        self._state.concluded = True
        if self._role == "local":
            self._state.snapshots = {"local": self._state.tally.snapshot()}
        snapshots = self._state.snapshots
        total = result.merge(snapshots.values())
        users = int(self._environment.runner.target_user_count)
        content = result.document(total, users=users, expected=self._expected(), parts=snapshots)
        self._summary = result.summary(content)
        parsed = self._environment.parsed_options
        if content["errors"]:
            self._environment.process_exit_code = parsed.exit_code_on_error
        if not content["complete"]:
            self._environment.process_exit_code = EXIT_FAILURE if parsed.run_time else EXIT_INTERRUPTED
            missing = f"{content['requests']} of {self._expected()} requests were made"
            print(f"error: the run ended early: {missing}", file=sys.stderr, flush=True)
        self._write(content)
        if not parsed.headless:
            logger.info("The run has ended:\n%s", self._summary)

    def _write(self, content: dict[str, Any]) -> None:
        if self.options.result is None or content["requests"] == 0:
            return
        try:
            result.write(Path(self.options.result), content)
        except OSError as error:
            self._environment.process_exit_code = EXIT_FAILURE
            reason = f"cannot write --result {self.options.result}: {error.strerror}; choose another place"
            print(f"error: {reason}", file=sys.stderr, flush=True)

    def _watch(self, state: _State) -> None:
        """End a run that cannot end by itself: the server went silent, or a worker was lost."""
        workers = set(self._environment.runner.clients) if self._role == "master" else set()
        while self._is_running(state):
            gevent.sleep(min(1.0, self.options.stall_timeout / 4))
            reason = self._lost_worker(workers) if self._role == "master" else self._stalled()
            if reason is not None and self._is_running(state):
                self._fail(reason, EXIT_FAILURE)

    def _is_running(self, state: _State) -> bool:
        # Locust's master stops the test itself when the last worker is lost, and then would wait forever.
        going = self.active or self._role == "master"
        ended = state.completing or state.stopping or state.concluded or state.failure is not None
        return going and self._state is state and not ended

    def _stalled(self) -> str | None:
        if (
            self._state.started == self._state.finished
            or self.options.stall_timeout > time.monotonic() - self._state.last_success
        ):
            return None
        return (
            f"no request to {self._environment.host} has succeeded for {self.options.stall_timeout:g} s: check the "
            "server, or raise --stall-timeout"
        )

    def _lost_worker(self, workers: set[str]) -> str | None:
        clients = self._environment.runner.clients
        lost = sorted(name for name in workers if name not in clients or clients[name].state == "missing")
        return f"worker {lost[0]} was lost and its clients with it: start the run again" if lost else None


def _remember_default_arguments() -> None:
    """Let a worker build Locust's table of default arguments once.

    Locust 2.47 builds a whole argument parser per option in every message that starts clients: a quarter of a second
    of CPU each time, taken from the clients that are being measured.
    """
    argument_parser.default_args_dict = functools.cache(argument_parser.default_args_dict)
    argument_parser.default_args_dict()
