"""Which network interface and address a process talks to the other ranks over.

On a machine with several interfaces the libraries may pick one that the other machines cannot reach; then ranks wait
until the time-out. So the address is shown at the start, and how to change it. Tests: tests/parallel/test_network.py.
"""

import socket
import struct
from contextlib import suppress

from nano_llama.core.env import socket_interface


def describe(backend: str) -> str:
    """ "address 10.0.0.2, interface eth0 (GLOO_SOCKET_IFNAME chooses another)", for "gloo" or "nccl"."""
    variable = f"{backend.upper()}_SOCKET_IFNAME"
    chosen = socket_interface(backend)
    if chosen:
        return f"address {address_of(chosen) or 'unknown'}, interface {chosen} (set by {variable})"
    if backend != "gloo":
        return f"interface chosen by NCCL (NCCL_DEBUG=INFO shows it, {variable} chooses another)"
    address = default_address()
    return f"address {address}, interface {interface_of(address) or 'unknown'} ({variable} chooses another)"


def default_address() -> str:
    """The address that gloo takes: the first of this machine's name that a socket can be bound to, else loopback."""
    with suppress(OSError):
        for family, kind, protocol, _, address in socket.getaddrinfo(
            socket.gethostname(), None, type=socket.SOCK_STREAM
        ):
            with suppress(OSError), socket.socket(family, kind, protocol) as probe:
                probe.bind(address)
                return str(address[0])
    return "127.0.0.1"


def interface_of(address: str) -> str | None:
    """The name of the interface that has this IPv4 address; None: unknown."""
    with suppress(OSError):
        return next((name for _, name in socket.if_nameindex() if address_of(name) == address), None)
    return None


def address_of(interface: str) -> str | None:
    """The IPv4 address of an interface, as Linux tells it; None: it has none, or the system does not say."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    SIOCGIFADDR = 0x8915
    request = struct.pack("256s", interface.encode()[:15])
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return socket.inet_ntoa(fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)[20:24])
    return None
