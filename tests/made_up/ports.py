"""Ports for programs that have to be told one before they start."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A port of the loopback address that nobody else is given for a minute.

    Bound at 0, connected to once and closed, it is in TIME_WAIT: the kernel hands it to nobody who binds at 0
    or connects, while a server that sets SO_REUSEADDR, as all of ours do, may listen on it.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        port = int(listener.getsockname()[1])
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = listener.accept()
            accepted.close()  # the side that closes first keeps the port in TIME_WAIT
    return port
