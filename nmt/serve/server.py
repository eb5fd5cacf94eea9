"""Run the application with uvicorn: sockets, time limits, graceful stop."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from nmt.errors import NmtError
from nmt.serve.guard import Guard

logger = logging.getLogger(__name__)

HEADER_SECONDS = 10.0  # to receive the headers of a request
DRAIN_SECONDS = 7.0  # after SIGTERM, to translate what was accepted; then 503
_STOP_SECONDS = 9  # after SIGTERM, to send the responses
_MAX_CONNECTIONS = 2000
_MAX_HEADER = 1 << 17  # bytes; deep-translator sends the text in the query string
_BACKLOG = 2048


class Protocol(H11Protocol):
    """uvicorn's HTTP protocol with a time limit for the headers."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time limit."""
        super().connection_made(transport)
        self._limit_headers()

    def data_received(self, data: bytes) -> None:
        """Start the time limit of a further request, or end it."""
        super().data_received(data)
        self._limit_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the time limit."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _limit_headers(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None:
            self._timer = self.loop.call_later(HEADER_SECONDS, self._close)

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(
                b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            )
            self.transport.close()


class Server(uvicorn.Server):
    """uvicorn's server with a time limit for the accepted requests at the end."""

    def __init__(self, app: Guard) -> None:
        self._batcher = app.batcher
        super().__init__(
            uvicorn.Config(
                app,
                http=Protocol,
                ws="none",
                lifespan="on",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                limit_concurrency=_MAX_CONNECTIONS,
                timeout_graceful_shutdown=_STOP_SECONDS,
                h11_max_incomplete_event_size=_MAX_HEADER,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Log the address once the server accepts connections and handles signals."""
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            logger.info(f"serving http://{shown}:{port}/ (Ctrl-C to stop)")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer the accepted requests; those not translated in time get status 503."""
        timer = asyncio.get_running_loop().call_later(DRAIN_SECONDS, self._batcher.stop)
        await super().shutdown(sockets)
        timer.cancel()


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        NmtError: address in use, not local, or not allowed.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NmtError(
            f"{host}:{port}: cannot listen ({reason})",
            f"use another port: nmt serve --port {port + 1 if port < 65535 else 5000}",
        ) from error


def run(app: Guard, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM."""
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal again at the end
        Server(app).run(sockets=[listener])
    logger.info("stopped")
