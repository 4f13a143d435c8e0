"""Fetches bodies through the chain and says their length and SHA-256; runs on the client host, stand-alone.

    python3 probe.py http://10.0.0.2:80 16384 65536

Needs nothing but the standard library of Python 3.9: its source travels as text.  Every body is fetched once on a new
connection and twice on a kept one, since a server may treat its first response and later ones differently.  Prints
{"manifest": {"<bytes>": "<sha256>"}, "bodies": [{"payload", "length", "sha256"}]}; exit code 1 and one sentence on
standard error when something was not answered.
"""

import hashlib
import http.client
import json
import sys
import urllib.parse

TIMEOUT_SECONDS = 20
KEPT_FETCHES = 2


def get(connection: http.client.HTTPConnection, path: str) -> bytes:
    """The body of `path`; OSError for any other status than 200."""
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    if response.status != 200:
        raise OSError(f"{path} was answered with status {response.status}")
    return body


def main(arguments: "list[str]") -> int:
    """Fetch and print; the exit code."""
    host = urllib.parse.urlsplit(arguments[0]).netloc
    kept = http.client.HTTPConnection(host, timeout=TIMEOUT_SECONDS)
    path = "/payload/manifest.json"
    bodies = []
    try:
        manifest = json.loads(get(kept, path))
        for size in map(int, arguments[1:]):
            path = f"/payload/{size}.bin"
            fresh = http.client.HTTPConnection(host, timeout=TIMEOUT_SECONDS)
            for connection in [fresh] + [kept] * KEPT_FETCHES:
                body = get(connection, path)
                bodies.append(
                    {"payload": size, "length": len(body), "sha256": hashlib.sha256(body).hexdigest()}
                )
            fresh.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        print(f"{path} of {host}: {str(error) or type(error).__name__}", file=sys.stderr)
        return 1
    kept.close()
    json.dump({"manifest": manifest, "bodies": bodies}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
