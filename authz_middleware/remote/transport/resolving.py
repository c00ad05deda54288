"""Looks up a host name within a time. The system's resolver cannot be interrupted, so names are looked up in a
thread that may be left behind; all who ask for one name meanwhile wait for the same thread."""

from __future__ import annotations

import asyncio
import os
import socket
from concurrent.futures import Future
from ipaddress import ip_address
from threading import Thread
from typing import Any, Final

Addresses = list[tuple[int, tuple[Any, ...]]]
_Lookup = tuple[int, str, int]

# The process is part of the key: a forked child waits for no thread of its parent's.
_under_way: Final[dict[_Lookup, Future[Addresses]]] = {}


def resolve(host: str, port: int, left: float) -> Addresses:
    """The addresses of a host, each with its family. Raises OSError; TimeoutError after `left` seconds."""
    return _look_up(host, port) if _is_address(host) else _looked_up(host, port).result(max(left, 0.0))


async def aresolve(host: str, port: int) -> Addresses:
    """`resolve` for an event loop, whose deadline ends the waiting. Raises OSError."""
    if _is_address(host):
        return _look_up(host, port)  # asks nobody
    return await asyncio.wrap_future(_looked_up(host, port))


def _looked_up(host: str, port: int) -> Future[Addresses]:
    """What is being looked up, perhaps for somebody else as well."""
    lookup = (os.getpid(), host, port)
    mine: Future[Addresses] = Future()
    mine.set_running_or_notify_cancel()  # from here on nobody who waits for it can cancel it for the others
    found = _under_way.setdefault(lookup, mine)
    if found is mine:
        try:
            Thread(target=_look_up_into, args=(mine, lookup), name="authz-resolve", daemon=True).start()
        except RuntimeError as error:  # there can be no more threads now; later there can, and somebody has to look
            del _under_way[lookup]
            mine.set_exception(error)
    return found


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _look_up(host: str, port: int) -> Addresses:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


def _look_up_into(found: Future[Addresses], lookup: _Lookup) -> None:
    try:
        addresses = _look_up(*lookup[1:])
    except Exception as error:  # noqa: BLE001 - raised again by whoever waits for it
        del _under_way[lookup]
        found.set_exception(error)
    else:
        del _under_way[lookup]
        found.set_result(addresses)
