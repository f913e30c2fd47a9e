"""The port: taken by the supervisor, listened on by every front end that inherits it.

They share one socket and one queue of connections. So a front end that dies, or is replaced, takes
no waiting connection with it (with a socket each, by SO_REUSEPORT, those in its queue would be
reset), and one that is busy leaves the next connection to others.
"""

from __future__ import annotations

import socket

from inarch.errors import ConfigError

BACKLOG = 1024  # connections that may wait to be accepted


def bind(host: str, port: int) -> socket.socket:
    """A socket that holds the port, and does not listen yet: until then clients are refused."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise cannot_listen(host, port, error) from error
    try:
        # A server that restarts must not wait for the last one's connections to be forgotten.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise cannot_listen(host, port, error) from error
    return listener


def cannot_listen(host: str, port: int, error: OSError) -> ConfigError:
    reason = error.strerror or str(error)
    return ConfigError(
        f"cannot listen on {host} port {port}: {reason};"
        " choose another one with --port or --host, or stop what uses it"
    )


def url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
