"""BE: answers requests for payloads and files, checks uploads or sends them back.

GET  /payload/SIZE[.bin]            pseudo-random bytes made from --seed, SIZE and an empty tag
GET  /payload/SIZE/TAG              the same with a tag: other bytes; "Range: bytes=A-B" asks for a part of them
GET  /cut/SIZE/STOP/TAG             announces SIZE bytes and ends the connection after STOP of them
GET  /file/PATH                     a file below --directory
POST /echo                          the body comes back
POST /digest                        {"bytes": N, "sha256": HEX} of the body
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from dataclasses import replace
from pathlib import Path

from odb.servers import http
from odb.servers.flags import FILE, Flags
from odb.servers.link import Link
from odb.servers.outgoing import Payload, send_message, send_range

SIZE_MAX = 1 << 30
BODY_MAX = 1 << 28

_PAYLOAD = re.compile(r"/payload/([0-9]{1,10})(?:\.bin|/([A-Za-z0-9._-]{0,64}))?")
_CUT = re.compile(r"/cut/([0-9]{1,10})/([0-9]{1,10})/([A-Za-z0-9._-]{0,64})")


class Origin:
    """Handles connections; one object for all of them, with no state but its settings and a count."""

    def __init__(self, flags: Flags, directory: Path | None = None, *, chunked: bool = False) -> None:
        self._flags = flags
        self._directory = directory
        self._chunked = chunked
        self._lock = threading.Lock()
        self.requests = 0

    async def handle(self, link: Link) -> None:
        """Answers until the peer has had enough. Raises PeerError and OSError."""
        while (head := await link.head()) is not None:
            with self._lock:
                self.requests += 1
            if not await self._answer(link, head):
                await link.finish()
                return

    async def _answer(self, link: Link, head: http.Head) -> bool:
        """Returns whether the connection can take another request."""
        method, path, _ = head.first
        body = http.request_body(head)
        if method == "POST" and path in {"/echo", "/digest"}:
            return await self._take(link, head, body, echo=path == "/echo")
        async for _ in link.body(body):
            pass
        if method not in {"GET", "HEAD"}:
            return await self._say(link, head, 405, "Method Not Allowed", b"no such method here\n")
        if match := _PAYLOAD.fullmatch(path):
            size = int(match[1])
            if size <= SIZE_MAX:
                return await self._payload(link, head, Payload(self._flags.seed, size, match[2] or "", size))
        if match := _CUT.fullmatch(path):
            size, stop = int(match[1]), int(match[2])
            if stop <= size <= SIZE_MAX:
                payload = Payload(self._flags.seed, size, match[3], stop)
                await send_message(link, http.response(200, "OK", size, close=True), payload)
                return False
        if path.startswith("/file/") and self._directory is not None:
            return await self._file(link, head, path.removeprefix("/file/"))
        return await self._say(link, head, 404, "Not Found", b"there is nothing here\n")

    async def _payload(self, link: Link, head: http.Head, payload: Payload) -> bool:
        chunked = self._chunked and head.version != "HTTP/1.0"
        length, extra, status, reason = payload.size, "", 200, "OK"
        part = http.wanted_part(head, payload.size)
        if part is not None:
            payload = replace(payload, start=part[0], stop=part[1])
            length, extra = part[1] - part[0], f"Content-Range: bytes {part[0]}-{part[1] - 1}/{payload.size}"
            status, reason = 206, "Partial Content"
        start = http.response(
            status, reason, None if chunked else length, extra=extra, close=not head.keepalive
        )
        if head.first[0] == "HEAD":
            await link.send([start], link.flags.head_chunk)
        else:
            await send_message(link, start, payload, chunked=chunked)
        return head.keepalive

    async def _file(self, link: Link, head: http.Head, name: str) -> bool:
        assert self._directory is not None
        root = self._directory.resolve()
        path = (root / name).resolve()
        if not path.is_relative_to(root) or not path.is_file():
            return await self._say(link, head, 404, "Not Found", b"there is no such file\n")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            await link.send([http.response(200, "OK", size, close=not head.keepalive)], link.flags.head_chunk)
            if head.first[0] == "HEAD":
                return head.keepalive
            if link.flags.send in FILE:
                await send_range(link, file.fileno(), 0, size)
            else:
                while part := file.read(link.flags.buffer):
                    await link.send([part])
        return head.keepalive

    async def _take(self, link: Link, head: http.Head, body: http.Body, *, echo: bool) -> bool:
        if head.get("expect").lower() == "100-continue":
            await link.send([b"HTTP/1.1 100 Continue\r\n\r\n"])
        kept: list[memoryview] = []
        digest, size = hashlib.sha256(), 0
        async for _, parts in link.body(body):
            for part in parts:
                size += len(part)
                if size > BODY_MAX:
                    await self._say(link, head, 413, "Content Too Large", b"too much\n")
                    return False
                if echo:
                    kept.append(part)
                else:
                    digest.update(part)
            if echo:
                link.release()
        if not echo:
            text = json.dumps({"bytes": size, "sha256": digest.hexdigest()}).encode()
            return await self._say(link, head, 200, "OK", text)
        start = http.response(200, "OK", size, close=not head.keepalive)
        if link.flags.head_chunk:
            await link.send([start], link.flags.head_chunk)
            start = b""
        await link.send([start, *kept])
        return head.keepalive

    @staticmethod
    async def _say(link: Link, head: http.Head, status: int, reason: str, text: bytes) -> bool:
        start = http.response(status, reason, len(text), close=not head.keepalive)
        await link.send([start, b"" if head.first[0] == "HEAD" else text], link.flags.head_chunk or None)
        return head.keepalive
