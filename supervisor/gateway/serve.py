"""As much of HTTP as a scraper and a health check speak: GET, one request a connection, everything bounded.

A client that sends slowly, reads slowly or sends too much is let go after its time; one too many drives out the oldest. None of them
costs another one anything, or the processes that trade.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

log = logging.getLogger(__name__)

HEAD_MAX_BYTES = 8 * 1024
CLIENTS_MAX = 64
READ_WITHIN_S = 5.0
WRITE_WITHIN_S = 10.0
_RETRY_S = 5.0
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
TEXT = "text/plain; charset=utf-8"


class Answer(NamedTuple):
    status: int
    body: bytes
    content_type: str = TEXT


class Request(NamedTuple):
    path: str
    headers: Mapping[str, str]  # by name in lower case


Answering = Callable[[Request], Awaitable[Answer]]


class Server:
    """Where it listens and whom it serves now."""

    def __init__(self, address: str, port: int, answer: Answering) -> None:
        self._address = address
        self._port = port
        self._answer = answer
        self._clients: dict[asyncio.StreamWriter, None] = {}  # oldest first

    async def run(self) -> None:
        """Serve until canceled. A port that is taken is told once and tried again every five seconds."""
        said = False
        while True:
            try:
                server = await asyncio.start_server(
                    self._serve, self._address, self._port, limit=HEAD_MAX_BYTES, backlog=CLIENTS_MAX
                )
            except OSError as error:
                if not said:
                    log.warning(
                        "nobody can ask %s port %d: %s. Trading goes on; the port is tried every %g s. "
                        "node_exporter has the same one by default: [metrics] port or enabled in horizon.toml change it",
                        self._address, self._port, error.strerror or error, _RETRY_S,
                        extra={"action": "port_taken"},
                    )  # fmt: skip
                said = True
                await asyncio.sleep(_RETRY_S)
                continue
            log.info("metrics and health on %s port %d", self._address, self._port, extra={"action": "listening"})
            try:
                await asyncio.Event().wait()
            finally:
                server.close()
                for client in self._clients:
                    client.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while len(self._clients) >= CLIENTS_MAX:
            oldest = next(iter(self._clients))
            del self._clients[oldest]
            oldest.transport.abort()
        self._clients[writer] = None
        try:
            answer = await self._answered(reader)
            async with asyncio.timeout(WRITE_WITHIN_S):
                writer.write(_encoded(answer))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # it left, or it does not read
        finally:
            self._clients.pop(writer, None)
            writer.transport.abort()

    async def _answered(self, reader: asyncio.StreamReader) -> Answer:
        """Raises: OSError, IncompleteReadError when the client is gone."""
        try:
            async with asyncio.timeout(READ_WITHIN_S):
                head = await reader.readuntil(b"\r\n\r\n")
        except TimeoutError:
            return _refusal(408)
        except asyncio.LimitOverrunError:
            return _refusal(431)
        request = _parsed(head)
        if isinstance(request, Answer):
            return request
        try:
            return await self._answer(request)
        except Exception:
            log.exception("%s could not be answered", request.path, extra={"action": "gateway_failed"})
            return _refusal(500)


def _parsed(head: bytes) -> Request | Answer:
    line, *lines = head.decode("latin-1").split("\r\n")
    words = line.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return _refusal(400)
    if words[0] != "GET":
        return _refusal(405)
    headers: dict[str, str] = {}
    for one in lines:
        name, colon, value = one.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return Request(words[1].partition("?")[0], headers)


def _refusal(status: int) -> Answer:
    return Answer(status, f"{_REASONS[status]}\n".encode())


def _encoded(answer: Answer) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
        *(["Allow: GET"] if answer.status == 405 else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + answer.body
