"""serve: from a free port to the last answer. The port is bound first, then the model is loaded in a thread, and until
it is there requests are answered with 503.

SIGTERM or Ctrl-C drains: new requests get 503, those that run may go on for drain_seconds and then end with an error.
A second signal ends at once.
Tests: tests/server/test_run.py.
"""

import asyncio
import errno
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

import uvicorn

from nano_llama.core.errors import EnvironmentFault, UserError
from nano_llama.server.app import create_app
from nano_llama.server.errors import ApiError
from nano_llama.server.hosts import is_loopback
from nano_llama.server.logs import event
from nano_llama.server.protocol import HttpProtocol
from nano_llama.server.service import Service
from nano_llama.vol3_engine.async_engine import AsyncEngine
from nano_llama.vol3_engine.llm import LLM

BACKLOG = 128  # connections that the kernel accepts before we do
OTHER_FILES = BACKLOG + 64  # connections that wait to be closed, the model, its processes, Python's own
GRACE_SECONDS = 2.0  # for clients to read the error with which a drain ends


def serve(service: Service, load: Callable[[], LLM], on_ready: Callable[[str], None], sock: socket.socket) -> int:
    """Serve until a signal, on a socket from `bind`, and return the exit code; on_ready gets the server's URL.

    0: everything was answered. 1: a drain took too long, or was cut short. Raises what `load` raises, and
    KeyboardInterrupt after Ctrl-C.
    """
    require_files(service.settings.max_connections)
    server = DrainingServer(service)
    asyncio.run(server.run_until_signal(load, on_ready, sock))
    if server.failure is not None:
        raise server.failure
    if server.signals[:1] == [signal.SIGINT]:
        raise KeyboardInterrupt
    return int(server.cut)


class DrainingServer(uvicorn.Server):
    """uvicorn's server, which on a signal goes on listening while it drains."""

    def __init__(self, service: Service):
        settings = service.settings
        protocol: Any = partial(HttpProtocol, settings=settings, rejected=service.metrics.rejected)
        config = uvicorn.Config(
            create_app(service),
            http=protocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=settings.keep_alive_seconds,  # type: ignore[arg-type]  # any number of seconds will do
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=settings.max_header_bytes,
        )
        super().__init__(config)
        self.service = service
        self.signals: list[int] = []
        self.failure: BaseException | None = None  # of loading
        self.cut = False  # whether a request did not get its answer
        self._drained_by = 0.0

    async def run_until_signal(
        self, load: Callable[[], LLM], on_ready: Callable[[str], None], sock: socket.socket
    ) -> None:
        """Listen, load, serve; at the end the engine is closed."""
        loading = asyncio.create_task(self._load(load, partial(on_ready, url_of(sock))))
        try:
            await self.serve(sockets=[sock])
        finally:
            loading.cancel()
            if self.service.loaded:
                await self.service.engine.close()

    async def _load(self, load: Callable[[], LLM], on_ready: Callable[[], None]) -> None:
        began = time.perf_counter()
        settings = self.service.settings
        try:
            llm = await in_daemon_thread(load)
            engine = AsyncEngine(llm, max_waiting=settings.max_waiting, max_waiting_tokens=settings.max_waiting_tokens)
            self.service.opened(engine)
            seconds = round(time.perf_counter() - began, 2)
            tokens = llm.engine.scheduler.max_num_batched_tokens
            event("ready", seconds=seconds, model=self.service.model_ids[0], max_num_batched_tokens=tokens)
            on_ready()
        except Exception as error:
            self.failure = error
            self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins to drain, the second ends it."""
        self.signals.append(sig)
        if len(self.signals) == 1:
            self.service.draining = True
            self._drained_by = time.monotonic() + self.service.settings.drain_seconds
        else:
            self.should_exit = self.force_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Every 100 ms: whether to stop listening."""
        leave = await super().on_tick(counter)
        if not self.service.draining or leave:
            return leave
        self.service.loading_over.set()
        if not self.service.in_flight:
            return True
        late = time.monotonic() - self._drained_by
        if late > 0:
            self.cut = True
            self.service.give_up(ApiError(503, "The server is shutting down.", code="draining"))
        return late > GRACE_SECONDS

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        event("shutdown", in_flight=self.service.in_flight or None)
        if self.service.in_flight:
            self.cut = True
            for connection in list(self.server_state.connections):
                connection.transport.abort()
        await super().shutdown(sockets)


async def in_daemon_thread(work: Callable[[], Any]) -> Any:
    """As asyncio.to_thread, but the process may end while it runs: compiling kernels can take a minute."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def settle(outcome: Callable[[Any], None], value: Any) -> None:
        if not done.cancelled():
            outcome(value)

    def run() -> None:
        outcome: tuple[Callable[[Any], None], Any]
        try:
            outcome = done.set_result, work()
        except Exception as error:
            outcome = done.set_exception, error
        with suppress(RuntimeError):  # the event loop has been closed: nobody waits
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="nano-llama-load", daemon=True).start()
    return await done


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UserError for a port that is taken or not ours, and for an unknown host."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)  # localhost: 127.0.0.1
        listening = socket.create_server(address[:2], family=family, backlog=BACKLOG)
        # For its connections, which inherit it; asyncio sets it only for sockets that name their protocol, as these do
        # not. Without it a body waits up to 40 ms after its head, and an event of a stream after the one before.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except socket.gaierror:
        raise UserError(f"--host {host}: unknown.", hint="127.0.0.1 is this machine, 0.0.0.0 all networks.") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"Port {port} on {host} is taken.", hint="Choose another:  --port 8001  (--port 0: any that is free)"
            ) from None
        if error.errno == errno.EACCES:
            raise UserError(f"Port {port} is not allowed.", hint="Choose one from 1024 on.") from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise UserError(f"--host {host} is not an address of this machine.") from None
        raise EnvironmentFault(f"Cannot listen on {host}, port {port}: {error.strerror}.") from None


def require_files(connections: int) -> None:
    """Raise this process's limit on open files as far as so many connections need, and as the system allows.

    Raises UserError where that is too little: without a free file the server could not even refuse a connection.
    """
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return
    needed = connections + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise UserError(
                f"max_connections={connections} needs {needed} open files, and this system allows {hard}.",
                hint=f"Raise it (ulimit -n {needed}), or lower the other:  --limit max_connections=N",
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def url_of(sock: socket.socket) -> str:
    """Where a program on this machine reaches the server."""
    host, port = sock.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def warning_of(service: Service) -> str | None:
    """What an operator should know before others find out."""
    settings = service.settings
    if is_loopback(settings.host) or settings.api_key_digests:
        return None
    return (
        f"Everybody who reaches {settings.host}:{settings.port} may use this server: it asks for no API key. "
        "Give it one with --api-key-file, and put a proxy with TLS before it."
    )
