"""HTTP and websockets of uvicorn with what it leaves open: deadlines, bounds, and ends that lose no request.

* The head and the body of a request are there within 10 s, and an answer is read within 10 s.
* A head has at most 64 KiB, and at most 64 requests wait on one connection.
* When the server stops, a connection that is idle is closed after a second, in which one more request is answered
  (by the application with "connection: close"): it may have been on its way.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

DEADLINE = 10.0  # seconds
LINGER = 1.0
HEAD = 64 * 1024  # bytes
PIPELINED = 64  # requests

_LATE = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Http(HttpToolsProtocol):
    """One connection."""

    deadline, linger = DEADLINE, LINGER

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.reading: asyncio.TimerHandle | None = self.loop.call_later(self.deadline, self.late)
        self.writing: asyncio.TimerHandle | None = None
        self.heading, self.head = True, 0  # whether a head is not complete, and its bytes so far

    def connection_lost(self, exc: Exception | None) -> None:
        self.forget()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.head = self.head + len(data) if self.heading else 0
        if self.head > HEAD and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.heading = True
        if self.reading is None:
            self.reading = self.loop.call_later(self.deadline, self.late)

    def on_headers_complete(self) -> None:
        self.heading = False
        if len(self.pipeline) >= PIPELINED:
            raise ValueError("too many requests at once")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self.reading is not None:
            self.reading.cancel()
            self.reading = None
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        self.forget()
        super().handle_websocket_upgrade()

    def late(self) -> None:
        """A request did not come in time."""
        if self.heading and (self.cycle is None or self.cycle.response_complete):
            self.transport.write(_LATE)
        self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.writing = self.loop.call_later(self.deadline, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.writing is not None:
            self.writing.cancel()
            self.writing = None

    def forget(self) -> None:
        """No deadline any more."""
        for timer in (self.reading, self.writing):
            if timer is not None:
                timer.cancel()

    def shutdown(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(self.linger, self.end)
        else:
            super().shutdown()

    def end(self) -> None:
        """Close the connection unless it is answering."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class WebSocket(WebSocketsSansIOProtocol):
    """One session, which the application closes after an answer, or which is closed when it asks nothing."""

    def shutdown(self) -> None:
        self.loop.call_later(LINGER, super().shutdown)
