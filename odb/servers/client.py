"""FE: asks for payloads through the chain, in order, and checks every byte of every answer."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from odb.servers import http
from odb.servers.content import content
from odb.servers.flags import LAST, Flags
from odb.servers.link import Link
from odb.servers.outgoing import Payload, send_message
from odb.servers.waiting import Waiter


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to ask for. The tag makes its payload unlike every other one."""

    kind: str
    size: int
    tag: str

    @property
    def stop(self) -> int:
        """How far a message goes that is broken off: anywhere, for each tag somewhere else."""
        return zlib.crc32(self.tag.encode()) % (self.size + 1)

    @property
    def part(self) -> tuple[int, int] | None:
        """The bytes that are asked for, from and before; None for all of them."""
        if self.kind != "range" or not self.size:
            return None
        begin = self.stop % self.size
        return begin, begin + 1 + zlib.crc32(b"end of " + self.tag.encode()) % (self.size - begin)

    @property
    def method(self) -> str:
        return {"head": "HEAD", "echo": "POST", "digest": "POST", "quit": "POST"}.get(self.kind, "GET")

    @property
    def path(self) -> str:
        if self.method == "POST":
            return "/echo" if self.kind == "echo" else "/digest"
        if self.kind == "missing":
            return f"/missing/{self.tag}"
        if self.kind == "cut":
            return f"/cut/{self.size}/{self.stop}/{self.tag}"
        return f"/payload/{self.size}/{self.tag}"


@dataclass(slots=True)
class Answer:
    """What came: `length` bytes of content with this hash. `end` is "" for a whole answer, or how it was broken off; `error` is
    what is wrong with it."""

    kind: str
    tag: str
    status: int = 0
    length: int = 0
    sha256: str = ""
    end: str = ""
    error: str = ""


@dataclass(slots=True)
class Summary:
    """The outcome of a run. `answers` in the order of the requests of each connection, connections one after the other."""

    requests: int = 0
    ok: int = 0
    bytes: int = 0
    seconds: float = 0.0
    stalled: bool = False
    errors: list[str] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    def as_json(self, *, answers: bool = False) -> dict[str, object]:
        """Without the answers unless asked for."""
        return {key: value for key, value in asdict(self).items() if answers or key != "answers"}


class Client:
    """Runs requests over `connections` (one list of requests each), `pipeline` of them under way at once on each."""

    def __init__(
        self,
        flags: Flags,
        waiter: Waiter,
        upstream: tuple[str, int],
        connections: Sequence[Sequence[Request]],
        *,
        pipeline: int = 1,
        close: bool = False,
        patience: float = 30.0,
    ) -> None:
        self._flags = flags
        self._waiter = waiter
        self._upstream = upstream
        self._connections = connections
        self._pipeline = pipeline
        self._close = close
        self._patience = patience
        self._links: set[Link] = set()
        self._over = threading.Event()
        self._stalled = False

    def run(self) -> Summary:
        """Asks for everything; a connection that breaks does not stop the others."""
        results: list[list[Answer]] = [[] for _ in self._connections]

        async def everything() -> None:
            for requests, answers in zip(self._connections, results, strict=True):
                await self._waiter.start(self._guarded(requests, answers))

        start = time.monotonic()
        watch = threading.Thread(target=self._watch, daemon=True)
        watch.start()
        try:
            self._waiter.run(everything())
        finally:
            self._over.set()
        summary = Summary(seconds=round(time.monotonic() - start, 6), stalled=self._stalled)
        for answer in [answer for answers in results for answer in answers]:
            summary.requests += 1
            summary.ok += not answer.error
            summary.bytes += answer.length
            summary.answers.append(answer)
            if answer.error and len(summary.errors) < 10:
                summary.errors.append(f"{answer.kind} {answer.tag}: {answer.error}")
        return summary

    def _watch(self) -> None:
        """Ends all connections when nothing has moved for as long as the patience lasts, although something is owed."""
        seen = -1
        while not self._over.wait(self._patience):
            now = sum(link.received + link.sent for link in list(self._links))
            if now == seen:
                self._stalled = True
                for link in list(self._links):
                    with contextlib.suppress(OSError):
                        link.sock.shutdown(socket.SHUT_RDWR)
            seen = now

    async def _guarded(self, requests: Sequence[Request], answers: list[Answer]) -> None:
        left = list(requests)
        while left:
            done = await self._connection(left, answers)
            left = left[done:]

    async def _connection(self, requests: Sequence[Request], answers: list[Answer]) -> int:
        """Asks as many requests as one connection is for, and returns how many; all of them are answered, if with an error."""
        count = 1 if self._close else len(requests)
        for at, request in enumerate(requests[:count]):
            if request.kind in LAST:
                count = at + 1
                break
        family = socket.AF_INET6 if ":" in self._upstream[0] else socket.AF_INET
        link = Link(socket.socket(family, socket.SOCK_STREAM), self._flags, self._waiter)
        self._links.add(link)
        done = 0
        try:
            await link.connect(self._upstream)
            while done < count:
                batch = self._batch(requests[done : min(done + self._pipeline, count)])
                await self._ask(link, batch, answers)
                done += len(batch)
        except (OSError, http.PeerError) as error:
            reason = "stalled" if self._stalled else _reason(error)
            answered = {answer.tag for answer in answers}
            asked = [request for request in requests[:count] if request.tag not in answered]
            answers.extend(Answer(request.kind, request.tag, error=reason) for request in asked)
        finally:
            self._links.discard(link)
            link.close()
        return count

    def _batch(self, requests: Sequence[Request]) -> Sequence[Request]:
        """The next requests that may be under way together: none beside one that ends its connection."""
        for at, request in enumerate(requests):
            if request.kind in LAST:
                return requests[: max(at, 1)]
        return requests

    async def _ask(self, link: Link, batch: Sequence[Request], answers: list[Answer]) -> None:
        errors: list[OSError] = []

        async def say() -> None:
            try:
                for request in batch:
                    await self._say(link, request)
            except OSError as error:
                errors.append(error)

        # Uploads are sent while answers are read, or both sides could wait for the other to read.
        uploads = any(request.kind in {"echo", "digest"} for request in batch)
        job = self._waiter.spawn(say()) if uploads else None
        if job is None:
            await say()
        for request in batch:
            answer = Answer(request.kind, request.tag)
            answers.append(answer)
            try:
                await self._read(link, request, answer)
            except (OSError, http.PeerError) as error:
                answer.error = "stalled" if self._stalled else _reason(errors[0] if errors else error)
                raise
        if job is not None:
            await job.join()

    async def _say(self, link: Link, request: Request) -> None:
        upload = request.method == "POST"
        host = f"{self._upstream[0]}:{self._upstream[1]}"
        length = request.size if upload else None
        head = http.request(
            request.method, request.path, host, length=length, part=request.part, close=self._close
        )
        if upload:
            stop = request.stop if request.kind == "quit" else request.size
            await send_message(link, head, Payload(self._flags.seed, request.size, request.tag, stop))
        else:
            await link.send([head], self._flags.head_chunk or None)
        if request.kind == "half":
            link.end()

    async def _read(self, link: Link, request: Request, answer: Answer) -> None:
        if request.kind == "quit":
            return
        head = await link.head()
        if head is None:
            raise http.PeerError("the peer ended the connection instead of answering")
        answer.status = head.status
        body = http.response_body(head, request.method)
        announced = head.get("content-length")
        digest = hashlib.sha256()
        text = b""
        try:
            async for _, parts in link.body(body):
                for part in parts:
                    if request.kind == "abandon":
                        part = part[: request.stop - answer.length]
                    digest.update(part)
                    answer.length += len(part)
                    if request.kind == "digest":
                        text += part
                if request.kind == "abandon" and answer.length >= request.stop:
                    answer.end = "abandoned"
                    break
        except http.PeerError:
            # The one kind of request that must end like this.
            if request.kind != "cut":
                raise
            answer.end = "cut"
        answer.sha256 = digest.hexdigest()
        answer.error = self._judge(request, answer, announced, text)

    def _judge(self, request: Request, answer: Answer, announced: str, text: bytes) -> str:
        """What is wrong with an answer, or nothing."""
        if request.kind == "missing":
            return "" if answer.status == 404 else f"status {answer.status} instead of 404"
        status = 206 if request.part else 200
        if answer.status != status:
            return f"status {answer.status} instead of {status}"
        if request.kind == "head":
            return "" if announced in {"", str(request.size)} else f"{announced} bytes announced"
        data = content(self._flags.seed, request.size, request.tag)
        if request.kind == "digest":
            expected = {"bytes": request.size, "sha256": hashlib.sha256(data).hexdigest()}
            return "" if json.loads(text or b"null") == expected else f"the origin got {text[:120]!r}"
        cut = "cut" if request.stop < request.size else ""
        ends = {"cut": (cut,), "abandon": ("abandoned", "")}.get(request.kind, ("",))
        if request.part:
            data = data[request.part[0] : request.part[1]]
        length = request.stop if request.kind in {"cut", "abandon"} else len(data)
        if answer.end not in ends:
            return f"the answer is whole, but should be {' or '.join(ends)}"
        if answer.length != length:
            return f"{answer.length} bytes instead of {length}"
        return (
            "" if answer.sha256 == hashlib.sha256(data[:length]).hexdigest() else "other bytes than expected"
        )


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
