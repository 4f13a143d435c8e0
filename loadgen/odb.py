"""The locustfile: ``locust -f loadgen/odb.py --headless --host http://fe``.

By default 1000 clients arrive at 50 per second and make 30 GETs each: exactly 30,000 requests, then the run ends
by itself. Works with the web page, headless, with ``--processes N`` and with ``--master`` and ``--worker``.

    locust -f loadgen/odb.py --headless --host http://10.0.0.2 --payload 65536 --result result.json
    locust -f loadgen/odb.py --headless --host http://10.0.0.2 --payload 16384,65536 --check hash
    locust -f loadgen/odb.py --headless --host http://10.0.0.2 -u 50 -r 50 --requests-per-user 40 --processes 2
    locust -f loadgen/odb.py --headless --host http://10.0.0.2 -u 50 -r 50 --requests-per-user 40 --rate 200
"""

from __future__ import annotations

import sys
from pathlib import Path

# Locust imports this file by path, from any working directory: the package it belongs to is made importable here
# and nowhere else.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from locust import events

from loadgen.heap import keep_heap
from loadgen.run import Run
from loadgen.users import PayloadUser

keep_heap()
PayloadUser.load = Run(events)

__all__ = ["PayloadUser"]
