"""IS: passes requests to the next hop and its responses back, as they come; heads travel unchanged."""

from __future__ import annotations

import contextlib
import socket

from odb.servers import http
from odb.servers.calls import Pipe
from odb.servers.flags import Flags
from odb.servers.link import Link
from odb.servers.outgoing import empty, refuses_splice
from odb.servers.waiting import Waiter

_SPLICE_STEP = 65536


class Relay:
    """Handles connections; each has a connection of its own to the next hop, kept as long as it lasts."""

    def __init__(self, flags: Flags, waiter: Waiter, upstream: tuple[str, int]) -> None:
        self._flags = flags
        self._waiter = waiter
        self._upstream = upstream

    async def handle(self, link: Link) -> None:
        """Relays until one side has had enough. Raises PeerError and OSError."""
        next_hop: Link | None = None
        try:
            while (head := await link.head()) is not None:
                next_hop, answer = await self._ask(link, next_hop, head)
                if answer is None:
                    text = b"the next hop does not answer\n"
                    await link.send([http.response(502, "Bad Gateway", len(text), close=True), text])
                    break
                body = http.response_body(answer, head.first[0])
                await link.send([answer.raw], self._flags.head_chunk or None)
                await self._pass(next_hop, link, body)
                if body.until_end or not (head.keepalive and answer.keepalive):
                    break
            else:
                return
        finally:
            if next_hop is not None:
                next_hop.close()
        await link.finish()

    async def _ask(self, link: Link, next_hop: Link | None, head: http.Head) -> tuple[Link, http.Head | None]:
        """Passes a request on and returns the connection that was used with the head of its answer, None for no answer.

        A kept connection that turns out to be closed is replaced once, if the request can be said again.
        """
        body = http.request_body(head)
        raw = head.raw
        if head.get("expect").lower() == "100-continue":
            await link.send([b"HTTP/1.1 100 Continue\r\n\r\n"])
            raw = head.without("expect")
        while True:
            kept = next_hop is not None
            repeatable = kept and body.done
            if next_hop is None:
                next_hop = self._new_link()
            answer = None
            try:
                if not kept:
                    await next_hop.connect(self._upstream)
                await next_hop.send([raw], self._flags.head_chunk or None)
                await self._pass(link, next_hop, body)
                answer = await self._answer_of(next_hop)
            except OSError:
                if not repeatable:
                    return next_hop, None
            except http.PeerError:
                next_hop.close()  # the caller does not get it
                raise
            if answer is not None or not repeatable:
                return next_hop, answer
            next_hop.close()
            next_hop = None

    @staticmethod
    async def _answer_of(next_hop: Link) -> http.Head | None:
        """The head of the final answer: interim ones are dropped."""
        while (answer := await next_hop.head()) is not None and answer.status < 200:
            pass
        return answer

    def _new_link(self) -> Link:
        family = socket.AF_INET6 if ":" in self._upstream[0] else socket.AF_INET
        return Link(socket.socket(family, socket.SOCK_STREAM), self._flags, self._waiter)

    async def _pass(self, source: Link, target: Link, body: http.Body) -> None:
        if (
            self._flags.send == "splice"
            and body.left is not None
            and not await self._splice(source, target, body)
        ):
            return
        async for raw, _ in source.body(body):
            await target.send([raw])

    async def _splice(self, source: Link, target: Link, body: http.Body) -> bool:
        """Moves the body past this process; True when the kernel refuses, and the rest has to be received and sent."""
        if source.pending and not body.done:
            raw = source.pending
            used, _ = body.take(raw)
            await target.send([raw[:used]])
            source.consume(used)
        with contextlib.closing(Pipe()) as pipe:
            while not body.done:
                wanted = min(body.left or 0, self._flags.receive_chunk or _SPLICE_STEP)
                try:
                    moved = await self._take(source, pipe, wanted)
                except OSError as error:
                    if refuses_splice(error):
                        return True
                    raise
                if moved == 0:
                    raise http.PeerError("the peer ended the connection inside a body")
                body.skip(moved)
                await empty(target, pipe)
        return False

    async def _take(self, source: Link, pipe: Pipe, wanted: int) -> int:
        fd = source.sock.fileno()
        while True:
            if not self._waiter.may_read(fd):
                await self._waiter.readable(fd)
            try:
                return pipe.take(fd, wanted)
            except BlockingIOError:
                await self._waiter.readable(fd)
