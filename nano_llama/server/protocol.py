"""HttpProtocol: uvicorn's HTTP/1.1 over h11, with deadlines and with limits on connections.

uvicorn waits forever for the rest of a request, and for a client that does not read. Here a request must arrive in
time, an answer must be read in time, and where all connections are taken, the longest idle one makes room.
Tests: tests/server/test_protocol.py.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from nano_llama.server.errors import ApiError
from nano_llama.server.hosts import is_loopback
from nano_llama.server.settings import ServerSettings

LINGER_SECONDS = 1.0  # a refused client may go on sending so long: closing at once would take the answer from it
PIPELINED_BYTES = 64 * 1024  # of further requests that are read while one is answered


class HttpProtocol(H11Protocol):
    """One connection. `rejected` is told the reason of each refusal, for the metrics."""

    def __init__(
        self, *args: Any, settings: ServerSettings, rejected: Callable[[str], None] = lambda reason: None, **named: Any
    ):
        super().__init__(*args, **named)
        self.settings, self.rejected = settings, rejected
        self.idle_since = time.monotonic()
        self._refused = False
        self._waits_for: Any = None  # the state of the request that `_deadline` is about
        self._deadline: asyncio.TimerHandle | None = None
        self._reading_deadline: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def address(self) -> str:
        return self.client[0] if self.client else ""

    @property
    def _all(self) -> "set[HttpProtocol]":
        return cast("set[HttpProtocol]", self.connections)

    # -- a connection ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        address = self.address
        own = [connection for connection in self._all if connection.address == address]
        if not is_loopback(address) and len(own) > self.settings.max_connections_per_address:
            most = self.settings.max_connections_per_address
            self._refuse(503, f"More than {most} connections from {address} (max_connections_per_address).")
        elif len(self._all) > self.settings.max_connections and not self._make_room():
            most = self.settings.max_connections
            self._refuse(503, f"All {most} connections are busy (max_connections).")
        else:
            self._renew_deadline()

    def _make_room(self) -> bool:
        """Close the connection that has been idle for the longest time, if there is one."""
        idle = [connection for connection in self._all - {self} if connection.idle]
        if not idle:
            return False
        longest = min(idle, key=lambda connection: connection.idle_since)
        self.connections.discard(longest)  # now, not when the event loop has told it
        longest.transport.abort()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._deadline, self._reading_deadline):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if not self._refused:
            super().shutdown()

    # -- a request that arrives -------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        self._renew_deadline()
        # While one request is answered, uvicorn stops reading when the next one arrives, and would not notice that the
        # client has left. So it goes on reading, up to a limit.
        if self.flow.read_paused and self.conn.their_state is h11.DONE and self._unread() <= PIPELINED_BYTES:
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        self.idle_since = time.monotonic()
        super().on_response_complete()
        self._renew_deadline()
        if self.transport.is_closing():  # once all is read; not all clients do
            self._expect_reading()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._expect_reading()

    def _unread(self) -> int:
        return len(self.conn.trailing_data[0])

    def _renew_deadline(self) -> None:
        """Start the clock when the connection begins to wait for headers, or for a body; stop it when they are there.

        Between requests nothing is awaited: uvicorn closes an idle connection by a clock of its own.
        """
        state = self.conn.their_state
        between_requests = state is h11.IDLE and self.cycle is not None and not self._unread()
        waits_for = None if between_requests or state not in (h11.IDLE, h11.SEND_BODY) else state
        if waits_for is self._waits_for:
            return
        self._waits_for = waits_for
        if self._deadline is not None:
            self._deadline.cancel()
        if waits_for is h11.IDLE:
            self._deadline = self.loop.call_later(self.settings.header_seconds, self._arrived_too_late)
        elif waits_for is h11.SEND_BODY:
            self._deadline = self.loop.call_later(self.settings.body_seconds, self._arrived_too_late)

    def _arrived_too_late(self) -> None:
        if self._waits_for is h11.IDLE:
            self._refuse(408, f"No complete headers within {self.settings.header_seconds:g} s (header_seconds).")
        else:
            self._refuse(408, f"No complete body within {self.settings.body_seconds:g} s (body_seconds).")

    # -- an answer that is read ---------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reading_deadline is not None:
            self._reading_deadline.cancel()
            self._reading_deadline = None

    def _expect_reading(self) -> None:
        """The client has so long to read what has been written; then the connection is cut, and with it the work."""
        if self._reading_deadline is None:
            self._reading_deadline = self.loop.call_later(self.settings.send_seconds, self.transport.abort)

    # -- answers without a request ------------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        """h11 could not read the request: uvicorn calls this while it handles h11's error."""
        error = sys.exception()
        if getattr(error, "error_status_hint", 400) == 431:
            self._refuse(431, f"The headers exceed {self.settings.max_header_bytes:,} bytes (max_header_bytes).")
        else:
            self._refuse(400, f"This is not HTTP: {error}.")

    def _refuse(self, status: int, message: str) -> None:
        """Answer with an error, take no further request, and close when the client has had time to read it."""
        self._refused = True
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering and self.cycle.response_started:  # an error amid another answer would be taken for a part of it
            self.transport.abort()
            return
        phrase = HTTPStatus(status).phrase
        code = phrase.lower().replace(" ", "_")
        self.rejected(code)
        error = ApiError(status, message, code=code)
        body = json.dumps(error.body()).encode()
        head = f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        if answering:  # a handler may be waiting for the body
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.abort)
        self.connections.discard(self)
