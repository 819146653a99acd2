"""Turns what ssh writes when it fails to connect into a message with the fix."""

from __future__ import annotations

import re

from morvit_deploy.agent.core.child import quoted
from morvit_deploy.errors import TargetError
from morvit_deploy.remote.host import Host

_DEBUG = re.compile(r"^debug\d: ")
_FINGERPRINT = re.compile(r"^debug1: Server host key: (\S+ \S+)", re.MULTILINE)
_OFFENDING = re.compile(r"Offending .* key in (\S.*):(\d+)")


def refusal(host: Host, log: str) -> TargetError:
    """The error for a failed connection, from ssh's log at level DEBUG1."""
    said = spoken(log)
    for sign, explain in _SIGNS:
        if sign in said:
            return TargetError(explain(host, said, log))
    return TargetError(
        f"cannot connect to {host.address}; try `{host.command()}`. ssh wrote:\n{quoted(said)}"
    )


def spoken(log: str) -> str:
    """ssh's output without its debug lines."""
    return "\n".join(line.rstrip() for line in log.splitlines() if line.strip() and not _DEBUG.match(line))


def _fingerprint(log: str) -> str:
    found = _FINGERPRINT.findall(log)
    return found[-1] if found else "no fingerprint"


def _unknown_key(host: Host, said: str, log: str) -> str:
    return (
        f"the host key of {host.address} is unknown, and unknown keys are never accepted silently. The device shows\n"
        f"  {_fingerprint(log)}\n"
        "Compare it on the device itself (`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`, or its RSA or ECDSA "
        f"file); if it is the same, run `{host.command()}` once and answer yes"
    )


def _changed_key(host: Host, said: str, log: str) -> str:
    place = _OFFENDING.search(said)
    known = f" ({place[1]}, line {place[2]})" if place else ""
    return (
        f"the host key of {host.address} differs from the known one{known}: the device was set up anew, or "
        f"another machine has its address. It shows\n  {_fingerprint(log)}\n"
        "Only if the device itself shows the same (`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`), remove the "
        f"old one with `ssh-keygen -R`{f' -f {place[1]}' if place else ''} and the host's name, then run "
        f"`{host.command()}` once"
    )


def _denied(host: Host, said: str, log: str) -> str:
    methods = re.search(r"Permission denied \(([^)]*)\)", said)
    asked = methods[1] if methods else "unknown methods"
    return (
        f"{host.address} accepts none of your keys (it offers: {asked}), and this tool does not ask for passwords; "
        f"run `{host.command('ssh-copy-id')}` once, or `ssh-add` for a key with a passphrase"
    )


def _no_name(host: Host, said: str, log: str) -> str:
    return f"there is no host of that name: {host.address}; give user@host, an address or a name of your ssh config"


def _refused(host: Host, said: str, log: str) -> str:
    return (
        f"{host.address} refuses the connection: no sshd listens there; start it on the device "
        "(`sudo systemctl start ssh`), or give the port with --ssh-option Port=N"
    )


def _silent(host: Host, said: str, log: str) -> str:
    return f"{host.address} does not answer; is the device on, and in the same network or behind a jump host?"


def _bad_option(host: Host, said: str, log: str) -> str:
    line = said.splitlines()[0]
    return f"ssh rejects its options: {line}; see `man ssh_config`"


# in this order: a changed key's message also contains that of a failed verification
_SIGNS = (
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", _changed_key),
    ("Host key verification failed", _unknown_key),
    ("Permission denied", _denied),
    ("Too many authentication failures", _denied),
    ("Could not resolve hostname", _no_name),
    ("Connection refused", _refused),
    ("Connection timed out", _silent),
    ("Operation timed out", _silent),
    ("No route to host", _silent),
    ("Network is unreachable", _silent),
    ("Bad configuration option", _bad_option),
    ("command-line: line", _bad_option),
    ("command-line line", _bad_option),
)
