"""Runs wrk and leaves its result in the same form as Locust's: a second generator to check the first one by.

    python3 wrk.py --host http://10.0.0.2 --payload 65536 --connections 32 --seconds 10 --result result.json

wrk makes as many requests as it can in the given time on connections that are kept. It checks no single body; that the
bytes received suffice for all of them is checked at the end, unless they are --encoded and may be fewer.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Started by path, as the locustfile is: see there.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from loadgen import result
from loadgen.histogram import LatencyHistogram

# Latencies come as this many equal shares of the requests: to ask wrk for each of them would take it minutes.
SHARES = 2000
EXIT_FAILURE = 1
_SLACK_SECONDS = 60.0
_FIGURES = ("requests", "duration", "bytes", "connect", "read", "write", "status", "timeout", "mean", "max")

# Says at once that the load has ended, then its figures (microseconds) and the latency at the middle of every share.
_SCRIPT = f"""
done = function(summary, latency, requests)
  io.write("ended\\n") io.flush()
  local errors = summary.errors
  local figures = {{ summary.requests, summary.duration, summary.bytes, errors.connect, errors.read, errors.write,
    errors.status, errors.timeout, latency.mean, latency.max }}
  for _, figure in ipairs(figures) do io.write(string.format("figure %.3f\\n", figure)) end
  for share = 0, {SHARES} - 1 do
    io.write(string.format("latency %d\\n", latency:percentile((share + 0.5) * 100 / {SHARES})))
  end
end
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the load; 0, or 1 and a sentence on standard error."""
    parser = argparse.ArgumentParser(description="Run wrk and write its result as the load generator does.")
    parser.add_argument("--host", required=True, metavar="URL")
    parser.add_argument("--payload", required=True, type=int, metavar="BYTES")
    parser.add_argument("--path-template", default="/payload/{size}.bin", metavar="PATH")
    parser.add_argument("--header", action="append", default=[], metavar="NAME: VALUE")
    parser.add_argument("--encoded", action="store_true")
    parser.add_argument("--connections", required=True, type=int, metavar="N")
    parser.add_argument("--threads", default=1, type=int, metavar="N")
    parser.add_argument("--seconds", required=True, type=float, metavar="S")
    parser.add_argument("--result", required=True, type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        content = measure(options)
        result.write(options.result, content)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILURE
    print(result.summary(content))
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run wrk to its end; the result's content. RuntimeError when it did not measure."""
    url = options.host.rstrip("/") + options.path_template.replace("{size}", str(options.payload))
    seconds = max(1, round(options.seconds))
    threads = min(options.threads, options.connections)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT)
        script.flush()
        headers = [word for header in options.header for word in ("-H", header)]
        command = ["wrk", *headers, "-t", str(threads), "-c", str(options.connections), "-d", f"{seconds}s"]
        lines, ended_at = _run([*command, "--timeout", "30s", "-s", script.name, url], seconds)
    return _content(options, threads, lines, ended_at)


def _run(command: Sequence[str], seconds: int) -> tuple[list[str], float]:
    """The lines that the script wrote, and when the load had ended."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        lines, ended_at = [], None
        for line in process.stdout:
            if line == "ended\n":
                ended_at = time.time()
            lines.append(line.strip())
        code = process.wait(seconds + _SLACK_SECONDS)
    if code != 0 or ended_at is None:
        raise RuntimeError(f"wrk failed with code {code}: {lines[-1] if lines else 'it said nothing'}")
    return lines, ended_at


def _content(
    options: argparse.Namespace, threads: int, lines: Sequence[str], ended_at: float
) -> dict[str, Any]:
    figures = [float(line.split()[1]) for line in lines if line.startswith("figure ")]
    said = dict(zip(_FIGURES, figures, strict=True))
    shares = [int(line.split()[1]) for line in lines if line.startswith("latency ")]
    broken = {kind: int(said[kind]) for kind in ("connect", "read", "write")}
    answered, failed = int(said["requests"]), sum(broken.values())
    if answered == 0:
        raise RuntimeError(f"{options.host} answered no request of wrk")
    bad_status = min(int(said["status"]), answered)
    if not options.encoded and said["bytes"] < (answered - bad_status) * options.payload:
        raise RuntimeError(
            f"{options.host} sent fewer bytes than {answered} bodies of {options.payload} have"
        )
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = result.Total(
        latencies=_histogram(shares, answered, failed, round(said["max"])),
        errors=Counter(
            {"bad status": bad_status, **{f"{kind} error": count for kind, count in broken.items()}}
        ),
        body_bytes=(answered - bad_status) * options.payload,
        started_at=ended_at - said["duration"] / 1e6,
        ended_at=ended_at,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        processes=1,
    )
    total.errors = +total.errors
    cores = min(threads, len(os.sched_getaffinity(0)))
    total.cpu_share = total.cpu_seconds / (said["duration"] / 1e6) / cores
    return result.document(total, users=options.connections, expected=answered + failed)


def _histogram(shares: Sequence[int], answered: int, failed: int, longest: int) -> LatencyHistogram:
    """All requests: those answered by their shares, those that failed at the longest latency seen."""
    histogram = LatencyHistogram()
    for at, latency in enumerate(shares):
        count = (at + 1) * answered // len(shares) - at * answered // len(shares)
        histogram.record(latency, count)
    if failed:
        histogram.record(longest, failed)
    return histogram


if __name__ == "__main__":
    sys.exit(main())
