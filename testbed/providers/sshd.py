"""The way into a host: keys made for this testbed, and the configuration of the host's own sshd."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

from testbed.errors import EnvironmentFault, ProviderError
from testbed.providers import overlay

PORT = 22
DIRECTORY = "/etc/odb-testbed"
CONFIGURATION = f"{DIRECTORY}/sshd_config"


def program() -> str:
    """Return the path of sshd, which has to be started by its full path."""
    found = shutil.which("sshd")
    if found is None:
        raise EnvironmentFault("sshd is missing", "apt-get install openssh-server")
    return str(Path(found).absolute())


def make_key(path: Path, comment: str) -> str:
    """Make an Ed25519 key pair at `path` and `path`.pub, unless both are there; returns the public key's line."""
    public = path.with_name(path.name + ".pub")
    if not (path.exists() and public.exists()):
        if shutil.which("ssh-keygen") is None:
            raise EnvironmentFault("ssh-keygen is missing", "apt-get install openssh-client")
        path.unlink(missing_ok=True)
        public.unlink(missing_ok=True)
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
        made = subprocess.run(
            command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60
        )
        if made.returncode != 0:
            raise ProviderError(f"cannot make the key {path}", made.stderr.strip() or None)
    return public.read_text(encoding="ascii").strip()


def install(root: Path, *, address: str, host_key: str, authorized: str) -> None:
    """Write sshd's configuration, host key and authorized key below a host's root.

    No PAM: a session module must not move the session to another cgroup.
    """
    overlay.write(root, f"{DIRECTORY}/ssh_host_ed25519_key", host_key, 0o600)
    overlay.write(root, f"{DIRECTORY}/authorized_keys", authorized + "\n")
    overlay.write(root, CONFIGURATION, _configuration(address))
    (root / "run/sshd").mkdir(mode=0o755, exist_ok=True)
    _unlock_root(root)


def _configuration(address: str) -> str:
    lines = {
        "ListenAddress": f"{address}:{PORT}",
        "HostKey": f"{DIRECTORY}/ssh_host_ed25519_key",
        "AuthorizedKeysFile": f"{DIRECTORY}/authorized_keys",
        "AuthenticationMethods": "publickey",
        "PermitRootLogin": "prohibit-password",
        "AllowUsers": "root",
        "UsePAM": "no",
        "UseDNS": "no",
        "PidFile": "/run/sshd.pid",
        "Subsystem": "sftp internal-sftp",
        "MaxStartups": "200",
        "MaxSessions": "200",
        "LoginGraceTime": "30",
        "PrintMotd": "no",
        "PrintLastLog": "no",
        "PermitUserRC": "no",
        "X11Forwarding": "no",
        "LogLevel": "INFO",
    }
    return "".join(f"{key} {value}\n" for key, value in lines.items())


def _unlock_root(root: Path) -> None:
    """Let root log in with a key: no lock on the account, and a shell that reads no start-up files of this machine."""
    shadow = root / "etc/shadow"
    if shadow.exists():
        lines = shadow.read_text(encoding="utf-8").splitlines()
        fields = [line.split(":") for line in lines]
        for entry in fields:
            if entry[0] == "root" and entry[1][:1] in ("!", ""):
                entry[1] = "*"
        overlay.write(root, "etc/shadow", "".join(":".join(entry) + "\n" for entry in fields), 0o600)
    entries = [line.split(":") for line in (root / "etc/passwd").read_text(encoding="utf-8").splitlines()]
    for entry in entries:
        if entry[0] == "root" and len(entry) == 7:
            entry[6] = "/bin/sh"
    overlay.write(root, "etc/passwd", "".join(":".join(entry) + "\n" for entry in entries))


def answers(address: str, port: int = PORT, timeout: float = 2.0) -> bool:
    """Tell whether an SSH server speaks first at that address."""
    try:
        with socket.create_connection((address, port), timeout=timeout) as connection:
            connection.settimeout(timeout)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
