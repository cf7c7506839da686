"""Load that leaves: 64 clients of all kinds, 30% of whom go away at a random moment. Is every other answer right?

    python bench/server_load.py --model SmolLM2-135M-Instruct.Q4_1.gguf [--seconds 300] [--clients 64] [--requests 160]

Completions and chats, streamed and plain, of 1 to 4 samples, with seeds, stop strings, penalties, logprobs, schemas;
some have a beginning in common. Before the server starts, LLM computes each of them alone, without a prefix cache.
Every answer that a client waited for must have the same token ids, text, reason to end, and logprobs to the last bit.
Who leaves does so in the queue, in prefill or amid the tokens, by closing, half-closing or resetting the connection.
The KV cache is small, so sequences lose their blocks to others and compute them again.

Bars: no answer differs; no block is held afterwards; the server's memory after a fifth of the time (of five minutes:
one) and at the end is within 3%; /health answers throughout. Needs the extra `serve`. Writes
bench/results/server_load.json; its last printed line is the summary.
"""

import argparse
import asyncio
import json
import random
import re
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _machine import fingerprint

from nano_llama import LLM, SamplingParams
from nano_llama.core.files import write_json

RESULTS = Path(__file__).parent / "results" / "server_load.json"
SAMPLES_AT_ONCE, KV_CACHE = 32, "32MiB"
LEAVING = 0.3
MOST_GROWTH = 1.03
COMPLETIONS, CHATS = "/v1/completions", "/v1/chat/completions"
WORDS = ["time", "sea", "house", "light", "river", "old", "small", "green", "run", "tell", "keep", "seven", "story"]
BEGINNING = "Once upon a time there was a story of the sea and the old house by the river. "
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "kind": {"enum": ["cat", "dog", "bird"]},
    },
    "required": ["name", "age", "kind"],
    "additionalProperties": False,
}
MOMENTS = ("at once", "at any time", "amid tokens")
WAYS = ("close", "half-close", "reset")


# -- requests ---------------------------------------------------------------------------------------------------------


def made_request(rng: random.Random) -> tuple[str, dict[str, Any]]:
    """(path, body), without `stream`."""
    beginning = "Once upon a time there was a story of the sea and the old house by the river. " * rng.choice(
        [0, 0, 1, 1, 4, 24]
    )
    text = beginning + " ".join(rng.choices(WORDS, k=rng.randint(3, 60)))
    body: dict[str, Any] = {
        "max_tokens": rng.randint(1, 48),
        "n": rng.choice([1, 1, 1, 2, 3, 4]),
        "seed": rng.randrange(2**32),
        "temperature": rng.choice([0, 0.7, 1.0, 1.3]),
        "return_token_ids": True,
    }
    for name, values in {
        "top_p": [0.8, 0.95], "top_k": [5, 40], "min_p": [0.05], "frequency_penalty": [0.5], "presence_penalty": [0.3],
        "repetition_penalty": [1.2], "stop": ["the", [".", " and", "\n\n"]], "ignore_eos": [True], "min_tokens": [1],
    }.items():  # fmt: skip
        if rng.random() < 0.25:
            body[name] = rng.choice(values)
    if rng.random() < 0.15:
        body |= {"structured_outputs": {"json": SCHEMA}, "max_tokens": 60}
    with_logprobs = rng.random() < 0.4
    if rng.random() < 0.3:
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
        return CHATS, {**body, "messages": messages, **({"logprobs": True} if with_logprobs else {})}
    return COMPLETIONS, {**body, "prompt": text, **({"logprobs": 0} if with_logprobs else {})}


Sample = dict[str, Any]  # {"ids", "text", "reason", "logprobs"}


def computed_alone(llm: LLM, path: str, body: dict[str, Any]) -> list[Sample]:
    given = {name: value for name, value in body.items() if name not in ("prompt", "messages", "return_token_ids")}
    if path == CHATS:
        given["logprobs"] = 0 if body.get("logprobs") else None
    params = SamplingParams(**given)
    (output,) = llm.generate(body["prompt"], params) if path == COMPLETIONS else llm.chat(body["messages"], params)
    return [
        {
            "ids": sample.token_ids,
            "text": sample.text,
            "reason": sample.finish_reason,
            "logprobs": sample.logprobs
            and [entries[token].logprob for entries, token in zip(sample.logprobs, sample.token_ids, strict=False)],
        }
        for sample in output.outputs
    ]


def samples_of(chunks: list[dict[str, Any]], count: int) -> list[Sample]:
    """A stream's chunks, or the one answer, put together."""
    samples = [{"ids": [], "text": "", "reason": None, "logprobs": None} for _ in range(count)]
    for choice in [choice for chunk in chunks for choice in chunk["choices"]]:
        sample = samples[choice["index"]]
        sample["ids"] += choice.get("token_ids") or []
        message = choice.get("delta") or choice.get("message") or {}
        sample["text"] += choice.get("text") or message.get("content") or ""
        sample["reason"] = choice["finish_reason"] or sample["reason"]
        if logprobs := choice.get("logprobs"):
            new = logprobs.get("token_logprobs") or [entry["logprob"] for entry in logprobs.get("content") or ()]
            sample["logprobs"] = (sample["logprobs"] or []) + new
    return samples


def same(got: list[Sample], expected: list[Sample]) -> bool:
    """To the last bit; no logprobs are as good as an empty list of them."""
    return [{**one, "logprobs": one["logprobs"] or []} for one in got] == [
        {**one, "logprobs": one["logprobs"] or []} for one in expected
    ]


# -- clients ----------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    counts: Counter = field(default_factory=Counter)
    different: list[dict[str, Any]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    health_seconds: list[float] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)  # (seconds since the start, MB)
    longest_step: float = 0.0  # seconds for which the engine was seen busy without a step


async def client(number: int, port: int, pool: list, until: float, tally: Tally) -> None:
    """One request after the other, until the time is over."""
    rng = random.Random(number)
    while time.monotonic() < until:
        place = rng.randrange(len(pool))
        path, body, expected = pool[place]
        streamed = rng.random() < 0.5
        data = json.dumps({**body, "stream": streamed}).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {len(data)}\r\n\r\n"
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode() + data)
        if rng.random() < LEAVING:
            await leave(reader, writer, rng, streamed, tally)
            continue
        received = await reader.read(-1)
        writer.close()
        status = int(received[9:12] or b"0")
        tally.counts[f"status {status}"] += 1
        if status == 429:
            found = re.search(rb"(?i)retry-after: (\d+)", received)
            assert found, "a refusal says when to come back"
            await asyncio.sleep(min(int(found[1]), 2) * rng.random())
            continue
        got = samples_of(chunks_of(received, streamed), body["n"]) if status == 200 else None
        if got is not None and same(got, expected):
            tally.counts["equal"] += 1
            tally.counts["equal, streamed" if streamed else "equal, plain"] += 1
            tally.seconds.append(time.monotonic() - began)
        else:
            tally.counts["different"] += 1
            tally.different.append({"path": path, "body": body, "got": got or received.decode()[-500:]})


def chunks_of(received: bytes, streamed: bool) -> list[dict[str, Any]]:
    """Raises ValueError for a stream that does not end with [DONE]."""
    head, _, body = received.partition(b"\r\n\r\n")
    if b"chunked" in head:
        whole, rest = b"", body
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            whole, rest = whole + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        body = whole
    if not streamed:
        return [json.loads(body)]
    events = body.decode("ascii").split("\n\n")
    if events[-2:] != ["data: [DONE]", ""]:
        raise ValueError(f"a stream without its end: {body[-300:]!r}")
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


async def leave(reader: Any, writer: Any, rng: random.Random, streamed: bool, tally: Tally) -> None:
    moment, way = rng.choice(MOMENTS), rng.choice(WAYS)
    if moment == "amid tokens" and streamed:
        with suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"data: ")
        await asyncio.sleep(rng.uniform(0.0, 1.0))
    elif moment != "at once":
        await asyncio.sleep(rng.uniform(0.0, statistics.median(tally.seconds[-50:] or [2.0])))
    tally.counts[f"left {moment}"] += 1
    if way == "half-close":
        if not writer.transport.is_closing():
            writer.write_eof()
        await reader.read(-1)
    elif way == "reset":
        own = writer.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        return
    writer.close()


async def get(port: int, path: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
    received = await asyncio.wait_for(reader.read(-1), 30)
    writer.close()
    assert received.startswith(b"HTTP/1.1 200"), received[:200]
    return received.partition(b"\r\n\r\n")[2].decode()


async def watch(port: int, process: int, tally: Tally) -> None:
    """Every second: memory, how long /health takes, and how long ago the last step was."""
    start = time.monotonic()
    while True:
        began = time.monotonic()
        health = json.loads(await get(port, "/health"))
        tally.health_seconds.append(time.monotonic() - began)
        if health["busy"]:
            tally.longest_step = max(tally.longest_step, health["seconds_since_step"] or 0.0)
        status = Path(f"/proc/{process}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        assert found
        tally.memory.append((began - start, int(found[1]) / 1024))
        await asyncio.sleep(1.0)


async def load(port: int, process: int, pool: list, clients: int, seconds: float) -> Tally:
    tally, until = Tally(), time.monotonic() + seconds
    watching = asyncio.create_task(watch(port, process, tally))
    await asyncio.gather(*(client(number, port, pool, until, tally) for number in range(clients)))
    watching.cancel()
    return tally


async def metrics_at_rest(port: int) -> dict[str, float]:
    """Our metrics, once nothing runs or waits; after 20 s, as they are."""
    for _ in range(200):
        text = await get(port, "/metrics")
        found = {name: float(value) for name, value in re.findall(r"^nano_llama:(\S+) (\S+)$", text, re.MULTILINE)}
        if not any(value for name, value in found.items() if name.startswith("num_requests_") or '"held"' in name):
            break
        await asyncio.sleep(0.1)
    return found


def labelled(metrics: dict[str, float], name: str, label: str) -> dict[str, float]:
    """The values of one metric by one of its labels."""
    pattern = re.compile(rf'{name}\{{.*{label}="([^"]*)"')
    return {found[1]: value for key, value in metrics.items() if (found := pattern.match(key))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=160, help="different ones")
    options = parser.parse_args()

    rng = random.Random(7)
    requests = [made_request(rng) for _ in range(options.requests)]
    began = time.monotonic()
    with LLM(options.model, max_num_seqs=4, kv_cache_memory="256MiB", prefix_caching=False) as llm:
        pool = [(path, body, computed_alone(llm, path, body)) for path, body in requests]
    tokens = sum(len(sample["ids"]) for *_, expected in pool for sample in expected)
    print(f"{len(pool)} requests computed alone, {tokens} tokens, {time.monotonic() - began:.0f} s", flush=True)

    command = [sys.executable, "-m", "nano_llama", "serve", "--model", str(options.model), "--port", "0", "--json"]
    command += ["--max-num-seqs", str(SAMPLES_AT_ONCE), "--kv-cache-memory", KV_CACHE]
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen(command, stdout=-1, stderr=log, text=True) as server:
        assert server.stdout
        port = int(json.loads(server.stdout.readline())["url"].rpartition(":")[2])
        try:
            tally = asyncio.run(load(port, server.pid, pool, options.clients, options.seconds))
            metrics = asyncio.run(metrics_at_rest(port))
        finally:
            server.send_signal(signal.SIGTERM)
        code = server.wait(60)
        log.seek(0)
        failures = [line for line in log if '"level": "error"' in line]

    mark = options.seconds / 5
    early = statistics.mean(mb for when, mb in tally.memory if mark <= when < mark + max(3, mark / 5))
    late = statistics.mean(mb for when, mb in tally.memory if when >= options.seconds - max(3, mark / 5))
    seconds, health = sorted(tally.seconds), sorted(tally.health_seconds)
    result = {
        "machine": fingerprint(),
        "seconds": options.seconds,
        "clients": options.clients,
        "requests": options.requests,
        "counts": dict(sorted(tally.counts.items())),
        "aborted": labelled(metrics, "aborted_total", "phase"),
        "ended": labelled(metrics, "request_success_total", "finished_reason"),
        "blocks": labelled(metrics, "blocks", "state"),
        "preemptions": next(value for name, value in metrics.items() if name.startswith("num_preemptions")),
        "memory_mb": {
            "early": round(early, 1),
            "late": round(late, 1),
            "ratio": round(late / early, 4),
            "course": [round(mb, 1) for _, mb in tally.memory[:: max(1, len(tally.memory) // 20)]],
        },
        "answer_seconds": {"p50": round(at(seconds, 0.5), 2), "p99": round(at(seconds, 0.99), 2)},
        "health_ms": {"p50": round(1e3 * at(health, 0.5), 1), "p99": round(1e3 * at(health, 0.99), 1)},
        "longest_step_s": round(tally.longest_step, 2),
        "exit_code": code,
        "errors_logged": len(failures),
        "different": tally.different[:5],
    }
    bars = {
        "equal": tally.counts["equal"] > 0 and not tally.counts["different"],
        "blocks": result["blocks"].get("held") == 0,
        "memory": late / early <= MOST_GROWTH,
        "clean": code == 0 and not failures,
    }
    write_json(RESULTS, {**result, "passed": bars})
    print(json.dumps({**result, "machine": None}, indent=1))
    print("".join(failures[:3]))
    print(
        f"{tally.counts['equal']} answers equal, {tally.counts['different']} different; aborted {result['aborted']}; "
        f"{result['blocks'].get('held'):.0f} blocks held; memory x {late / early:.3f}; "
        f"{'passed' if all(bars.values()) else 'FAILED: ' + ', '.join(name for name, ok in bars.items() if not ok)}"
    )


def at(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


if __name__ == "__main__":
    main()
