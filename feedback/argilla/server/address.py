"""Where a server listens, and under which address this machine reaches it."""

import errno
import ipaddress
import os
import socket

from feedback.errors import UserError


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def local_url(host: str, port: int) -> str:
    """The address for this machine of what listens there."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{port}"
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"http://{address}:{port}" if address.version == 4 else f"http://[{address}]:{port}"


def require_free(host: str, port: int) -> None:
    """See that the address can be listened on.

    Raises:
        UserError: another program has it, or it is none of this machine's.
    """
    if not 1 <= port <= 65535:
        raise UserError(f"--port {port}: not a port; choose one from 1024 to 65535")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server(address[:2], family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"--port {port}: taken by another program; choose another, e.g. --port {port + 1}"
            ) from None
        # Python's own words repeat the address.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise UserError(
            f"--host {host} --port {port}: can't be listened on ({reason}); --host names an address of this machine"
        ) from None
