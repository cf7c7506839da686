"""A streaming client that costs next to nothing: raw sockets, times of arrival, and no JSON until the end.

Started by server.py as a process of its own; answers each line of JSON on stdin with one on stdout:

    {"do": "batch", "port", "bodies": [...]}                                 all at once, to the end
    {"do": "arrivals", "port", "body", "per_second", "seconds"}              open loop
    {"do": "readers", "port", "bodies": [...], "intruder", "every", "seconds"}   and long prompts
    {"do": "get", "port", "path", "per_second", "seconds"}                   plain requests beside others

Every answer holds "cpu": the seconds of processor time that this client took.
"""

import asyncio
import json
import sys
import time
from typing import Any

PATH = "/v1/completions"
EVENT = b"data: {"


class Exchange(asyncio.Protocol):
    """One request on a connection of its own: its status, and when each event came."""

    def __init__(self, request: bytes):
        self.request = request
        self.received = bytearray()
        self.times: list[float] = []  # of the events, those that came together at the same time
        self.began = 0.0
        self.ended = 0.0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.began = time.perf_counter()
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        now, seen = time.perf_counter(), max(0, len(self.received) - len(EVENT) + 1)
        self.received += data
        self.times += [now] * self.received.count(EVENT, seen)

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = time.perf_counter()
        if not self.done.done():
            self.done.set_result(None)

    @property
    def status(self) -> int:
        return int(self.received[9:12] or b"0")

    def header(self, name: str) -> str | None:
        for line in bytes(self.received).split(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(": ")
            if key.lower() == name:
                return value
        return None

    def facts(self) -> dict[str, Any]:
        whole = self.status == 200 and (b"data: [DONE]" in self.received or not self.times)
        return {
            "status": self.status,
            "whole": whole,
            "began": self.began,
            "seconds": self.ended - self.began,
            "first": self.times[0] - self.began if self.times else None,
            "intervals": [b - a for a, b in zip(self.times, self.times[1:], strict=False)],
            "events": len(self.times),
            "retry_after": self.header("retry-after"),
        }


def post(body: Any, path: str = PATH) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()


async def send(port: int, request: bytes) -> Exchange:
    """To its end."""
    loop = asyncio.get_running_loop()
    try:
        _, exchange = await loop.create_connection(lambda: Exchange(request), "127.0.0.1", port)
    except OSError:  # too many connections: no answer is an answer too
        return Exchange(request)
    await exchange.done
    return exchange


async def batch(port: int, bodies: list[Any]) -> dict[str, Any]:
    began = time.perf_counter()
    exchanges = await asyncio.gather(*(send(port, post(body)) for body in bodies))
    return {"seconds": time.perf_counter() - began, "requests": [exchange.facts() for exchange in exchanges]}


async def open_loop(port: int, request: bytes, per_second: float, seconds: float) -> list[Exchange]:
    tasks, began = [], time.perf_counter()
    for number in range(int(per_second * seconds)):
        await asyncio.sleep(max(0.0, began + number / per_second - time.perf_counter()))
        tasks.append(asyncio.create_task(send(port, request)))
    return await asyncio.gather(*tasks)


async def arrivals(port: int, body: Any, per_second: float, seconds: float) -> dict[str, Any]:
    began = time.perf_counter()
    exchanges = await open_loop(port, post(body), per_second, seconds)
    return {"seconds": time.perf_counter() - began, "requests": [exchange.facts() for exchange in exchanges]}


async def readers(port: int, bodies: list[Any], intruder: list[Any], every: float, seconds: float) -> dict[str, Any]:
    """Each reader begins anew when its text is over. Long prompts come on time, each another."""
    until = time.perf_counter() + seconds

    async def read(body: Any) -> list[Exchange]:
        found = []
        while time.perf_counter() < until:
            found.append(await send(port, post(body)))
        return found

    async def intrude() -> list[Exchange]:
        tasks = []
        for body in intruder:
            await asyncio.sleep(every)
            if time.perf_counter() > until - 1:
                break
            tasks.append(asyncio.create_task(send(port, post(body))))
        return await asyncio.gather(*tasks)

    *texts, long = await asyncio.gather(*(read(body) for body in bodies), intrude())
    return {
        "requests": [exchange.facts() for found in texts for exchange in found],
        "long": [exchange.facts() for exchange in long],
    }


async def plain(port: int, path: str, per_second: float, seconds: float) -> dict[str, Any]:
    exchanges = await open_loop(port, get(path), per_second, seconds)
    return {"requests": [exchange.facts() for exchange in exchanges]}


TASKS = {"batch": batch, "arrivals": arrivals, "readers": readers, "get": plain}


def main() -> None:
    for line in sys.stdin:
        question = json.loads(line)
        before = time.process_time()
        answer = asyncio.run(TASKS[question.pop("do")](**question))
        print(json.dumps({**answer, "cpu": time.process_time() - before}), flush=True)


if __name__ == "__main__":
    main()
