"""Fetches bodies through the chain and says their length and SHA-256; runs on the client host, stand-alone.

    python3 probe.py http://10.0.0.2:80 16384 65536
    python3 probe.py https://10.0.0.2:443 16384 --header "Accept-Encoding: gzip"

Needs nothing but the standard library of Python 3.9: its source travels as text.  Every body is fetched once on a new
connection and twice on a kept one, since a server may treat its first response and later ones differently.  Prints
{"manifest": {"<bytes>": "<sha256>"}, "bodies": [{"payload", "length", "sha256"}]}; exit code 1 and one sentence on
standard error when something was not answered.  A body that comes compressed is unpacked first; over TLS any certificate will
do.  Headers that ask for an encoding must be answered with it: {"encoded"} counts the bodies that were.
"""

import argparse
import gzip
import hashlib
import http.client
import json
import ssl
import sys
import urllib.parse

TIMEOUT_SECONDS = 20
KEPT_FETCHES = 2


def connect(url: str) -> http.client.HTTPConnection:
    """A connection that has yet to be made."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "https":
        anybody = ssl.create_default_context()
        anybody.check_hostname = False
        anybody.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection(parts.netloc, timeout=TIMEOUT_SECONDS, context=anybody)
    return http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT_SECONDS)


def get(connection: http.client.HTTPConnection, path: str, headers: "dict[str, str]") -> "tuple[bytes, bool]":
    """The body of `path`, and whether it came compressed; OSError for any other status than 200."""
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    if response.status != 200:
        raise OSError(f"{path} was answered with status {response.status}")
    packed = response.getheader("Content-Encoding") == "gzip"
    return (gzip.decompress(body), True) if packed else (body, False)


def main(arguments: "list[str]") -> int:
    """Fetch and print; the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("sizes", nargs="+", type=int)
    parser.add_argument("--header", action="append", default=[])
    options = parser.parse_args(arguments)
    headers = dict(line.split(": ", 1) for line in options.header)
    kept = connect(options.url)
    path = "/payload/manifest.json"
    bodies, encoded = [], 0
    try:
        manifest = json.loads(get(kept, path, {})[0])
        for size in options.sizes:
            path = f"/payload/{size}.bin"
            fresh = connect(options.url)
            for connection in [fresh] + [kept] * KEPT_FETCHES:
                body, packed = get(connection, path, headers)
                encoded += packed
                bodies.append(
                    {"payload": size, "length": len(body), "sha256": hashlib.sha256(body).hexdigest()}
                )
            fresh.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        print(f"{path} of {options.url}: {str(error) or type(error).__name__}", file=sys.stderr)
        return 1
    kept.close()
    json.dump({"manifest": manifest, "bodies": bodies, "encoded": encoded}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
