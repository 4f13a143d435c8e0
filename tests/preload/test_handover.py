"""A framed connection that goes on in another program image is still the same connection (I11)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.preload.harness import EVERYWHERE, Preload

LENGTH = 300_000
CLIENT = """
import os, socket, sys, threading
sent = os.urandom(int(sys.argv[2]))
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20) as connection:
    writer = threading.Thread(target=connection.sendall, args=(sent,))
    writer.start()
    received = b""
    while len(received) < len(sent) and (got := connection.recv(65536)):
        received += got
    writer.join()
print("equal" if received == sent else f"{len(received)} of {len(sent)} bytes, or wrong ones")
"""


@pytest.mark.parametrize("manner", ["exec", "middle", "spawn", "rights"])
@pytest.mark.parametrize("align", ["on", "off"])
def test_connection_goes_on_in_another_image(preload: Preload, manner: str, align: str) -> None:
    server_options = preload.environment(listen=EVERYWHERE, align=align, drain_ms="2000")
    client_options = preload.environment(connect=EVERYWHERE, align=align, drain_ms="2000")
    program = Path(__file__).with_name("handover_server.py")
    with subprocess.Popen(
        [sys.executable, program, manner, str(LENGTH)], stdout=subprocess.PIPE, text=True, env=server_options
    ) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        client = subprocess.run(
            [sys.executable, "-c", CLIENT, port, str(LENGTH)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=40,
            env=client_options,
            check=False,
        )
        assert (client.stdout, client.stderr) == ("equal\n", "")
        assert server.wait(timeout=20) == 0
    left = [file.name for file in (preload.directory / "statistics").glob("handover.*")]
    assert left == [], "every record that was written has been taken"
