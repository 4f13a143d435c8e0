"""An HTTP client that trusts nobody: strict about framing, never waits without end, and tells short bodies from wrong ones."""

from __future__ import annotations

import random
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

STALL_SECONDS = 12.0


@dataclass(frozen=True)
class Answer:
    """A response. `problem` is empty when it arrived whole; else what happened ("short", "reset", "stalled", ...)."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    problem: str = ""

    @property
    def whole(self) -> bool:
        return not self.problem


class Connection:
    """One connection to a server on loopback; reading never takes longer than STALL_SECONDS without progress."""

    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(STALL_SECONDS)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            self.socket.connect(("127.0.0.1", port))
            if tls is not None:
                self.socket = tls.wrap_socket(self.socket)
        except BaseException:
            self.socket.close()
            raise
        self._have = bytearray()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(
        self,
        path: str,
        *,
        method: str = "GET",
        version: str = "1.1",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> None:
        """Sends one request."""
        fields = {"Host": "test", **(headers or {})}
        if body:
            fields.setdefault("Content-Length", str(len(body)))
        lines = [f"{method} {path} HTTP/{version}", *(f"{name}: {value}" for name, value in fields.items())]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    def get(self, path: str, **how: object) -> Answer:
        """Sends one request and reads its answer."""
        self.send(path, **how)  # type: ignore[arg-type]
        return self.answer(str(how.get("method", "GET")))

    def answer(self, method: str = "GET") -> Answer:
        """Reads one response, as far as it comes. Nothing is raised: see Answer.problem."""
        status, headers, body = 0, {}, bytearray()
        try:
            status, headers = self._head()
            self._body(method, status, headers, body)
        except EOFError:
            return Answer(status, headers, bytes(body), "short")
        except TimeoutError:
            return Answer(status, headers, bytes(body), "stalled")
        except ConnectionError as error:
            return Answer(status, headers, bytes(body), "reset" if status else type(error).__name__)
        except ValueError as error:
            return Answer(status, headers, bytes(body), f"malformed: {error}")
        return Answer(status, headers, bytes(body))

    def answer_behind(self, start: bytes) -> Answer:
        """As answer(), when `start` has been read from the socket by other means."""
        self._have[:0] = start
        return self.answer()

    def at_end(self) -> bool:
        """True when the server has closed the connection and nothing came behind what was read."""
        try:
            return not self._have and self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def _more(self) -> None:
        got = self.socket.recv(262144)
        if not got:
            raise EOFError
        self._have += got

    def _line(self) -> str:
        while (end := self._have.find(b"\r\n")) < 0:
            if len(self._have) > 65536:
                raise ValueError("a line without end")
            self._more()
        line = bytes(self._have[:end])
        del self._have[: end + 2]
        return line.decode("latin-1")

    def _head(self) -> tuple[int, dict[str, str]]:
        words = self._line().split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
            raise ValueError(f"status line {' '.join(words)[:60]!r}")
        headers: dict[str, str] = {}
        while line := self._line():
            name, colon, value = line.partition(":")
            if not colon:
                raise ValueError(f"header {line[:60]!r}")
            headers[name.strip().lower()] = value.strip()
        return int(words[1]), headers

    def _take(self, body: bytearray, length: int) -> None:
        while length > 0:
            if not self._have:
                self._more()
            part = self._have[:length]
            body += part
            del self._have[: len(part)]
            length -= len(part)

    def _body(self, method: str, status: int, headers: Mapping[str, str], body: bytearray) -> None:
        if method == "HEAD" or status in {204, 304}:
            return
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self._line().partition(";")[0], 16):
                self._take(body, size)
                if self._line():
                    raise ValueError("no line end behind a chunk")
            while self._line():
                continue
        elif "content-length" in headers:
            self._take(body, int(headers["content-length"]))
        else:
            self._take_all(body)

    def _take_all(self, body: bytearray) -> None:
        try:
            while True:
                body += self._have
                self._have.clear()
                self._more()
        except EOFError:
            return


def get(port: int, path: str, **how: object) -> Answer:
    """One request on a connection of its own. A refused connection is an answer too."""
    try:
        connection = Connection(port)
    except OSError as error:
        return Answer(0, {}, b"", type(error).__name__)
    with connection:
        try:
            return connection.get(path, **how)
        except OSError as error:
            return Answer(0, {}, b"", type(error).__name__)


@dataclass
class Tally:
    """What the clients of a load saw. `wrong` must always stay empty; `problems` counts requests that failed."""

    good: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def stalled(self) -> int:
        return self.problems["stalled"]


def judge(answer: Answer, allowed: Sequence[bytes]) -> tuple[str, str]:
    """(problem, wrong): both empty for a good answer. Wrong is a body that is not the beginning of any allowed content,
    or a whole one that is none of them."""
    if answer.status == 200:
        if not any(content.startswith(answer.body) for content in allowed):
            matching = max(_common(answer.body, content) for content in allowed)
            return (
                "wrong",
                f"{len(answer.body)} bytes, right only for the first {matching} ({answer.problem or 'whole'})",
            )
        if answer.whole and answer.body not in allowed:
            return "wrong", f"a whole body of {len(answer.body)} bytes that is only the beginning"
    if answer.problem:
        return answer.problem, f"malformed answer: {answer.problem}" if answer.problem.startswith(
            "malformed"
        ) else ""
    return ("", "") if answer.status == 200 else (str(answer.status), "")


def _common(a: bytes, b: bytes) -> int:
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[:middle] == b[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


class Load:
    """Clients in threads, each asking for one random path after the other and checking every byte, until stopped.

    contents: path -> the bytes it may have. close_share: the share of requests with a connection of their own.
    """

    def __init__(
        self,
        port: int,
        contents: Mapping[str, Sequence[bytes]],
        *,
        clients: int = 8,
        close_share: float = 0.2,
        seed: int = 1,
    ) -> None:
        self.tally = Tally()
        self._port = port
        self._contents = contents
        self._close_share = close_share
        self._ending = threading.Event()
        self._changed = threading.Condition()
        self._answers = [0] * clients
        self._threads = [
            threading.Thread(target=self._run, args=(number, random.Random(f"{seed}.{number}")), daemon=True)
            for number in range(clients)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> Tally:
        """Every client finishes its request; the tally is then final."""
        self._ending.set()
        for thread in self._threads:
            thread.join(3 * STALL_SECONDS)
        assert not any(thread.is_alive() for thread in self._threads), "a client of the load never came back"
        return self.tally

    def wait(self, more: int, seconds: float = 60.0) -> None:
        """Returns when `more` further requests have been good."""
        deadline = time.monotonic() + seconds
        with self._changed:
            target = self.tally.good + more
            reached = self._changed.wait_for(lambda: self.tally.good >= target, deadline - time.monotonic())
        assert reached, f"the load did not reach {more} more good requests: {self.tally}"

    def wait_all(self, seconds: float = 60.0) -> None:
        """Returns when every client is done with the request that it has under way now."""
        with self._changed:
            before = list(self._answers)
            reached = self._changed.wait_for(lambda: all(map(int.__gt__, self._answers, before)), seconds)
        assert reached, f"a client of the load never came back: {self.tally}"

    def wait_problem(self, seconds: float = 60.0) -> None:
        """Returns when a request has failed."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.tally.problems.total() > 0, seconds), (
                "no request failed"
            )

    def _run(self, client: int, numbers: random.Random) -> None:
        connection: Connection | None = None
        paths = sorted(self._contents)
        while not self._ending.is_set():
            path = numbers.choice(paths)
            closing = numbers.random() < self._close_share
            try:
                fresh = connection is None
                connection = connection or Connection(self._port)
                answer = connection.get(path, headers={"Connection": "close"} if closing else {})
                if (
                    not fresh
                    and answer.status == 0
                    and answer.problem not in {"", "stalled"}
                    and not answer.body
                ):
                    # An idle connection may be closed under the request: every client tries such a request again.
                    connection.close()
                    connection = None
                    continue
            except OSError as error:
                answer = Answer(0, {}, b"", type(error).__name__)
            if connection is not None and (
                closing or not answer.whole or answer.headers.get("connection") == "close"
            ):
                connection.close()
                connection = None
            self._note(client, path, answer)
            if answer.problem == "ConnectionRefusedError":
                self._ending.wait(0.01)
        if connection is not None:
            connection.close()

    def _note(self, client: int, path: str, answer: Answer) -> None:
        problem, wrong = judge(answer, self._contents[path])
        with self._changed:
            self._answers[client] += 1
            if wrong:
                self.tally.wrong.append(f"{path}: {wrong}")
            if problem:
                self.tally.problems[problem] += 1
            else:
                self.tally.good += 1
            self._changed.notify_all()
