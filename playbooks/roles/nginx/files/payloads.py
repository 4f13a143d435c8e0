"""Makes the payload files of a BE and their manifest; writes only what is missing or different.

    python3 payloads.py --directory DIR --seed N SIZE ...

DIR/SIZE.bin holds SIZE pseudo-random bytes that depend on the seed and the size alone; DIR/manifest.json maps each size to its
SHA-256.  Files of other sizes that an earlier run made are removed.  The last line printed is "changed" or "unchanged".
"""

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path


def content(seed: int, size: int) -> bytes:
    """The bytes of one payload."""
    return hashlib.shake_256(f"odb payload {seed} {size}".encode()).digest(size)


def write(path: Path, data: bytes) -> bool:
    """Write a file at once; returns whether it was different."""
    try:
        if path.read_bytes() == data:
            return False
    except FileNotFoundError:
        pass
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(data)
    temporary.chmod(0o644)
    temporary.replace(path)
    return True


def main() -> int:
    """Bring the directory to the wanted content."""
    parser = argparse.ArgumentParser(description="Make payload files and their manifest.")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("sizes", type=int, nargs="+")
    arguments = parser.parse_args()
    os.umask(0o022)
    directory = arguments.directory
    directory.mkdir(parents=True, exist_ok=True)
    changed, manifest = False, {}
    for size in arguments.sizes:
        data = content(arguments.seed, size)
        manifest[str(size)] = hashlib.sha256(data).hexdigest()
        changed |= write(directory / f"{size}.bin", data)
    for file in directory.glob("*.bin"):
        if file.stem not in manifest:
            file.unlink()
            changed = True
    changed |= write(directory / "manifest.json", (json.dumps(manifest, indent=1) + "\n").encode())
    print("changed" if changed else "unchanged")
    return 0


if __name__ == "__main__":
    sys.exit(main())
