"""`nano-llama bench`: how fast this machine runs a model, beside what its memory allows.

Not here: the measuring (vol3_engine/benchmark.py), races with other engines (bench/). Tests: tests/cli/test_bench.py.
"""

from typing import Annotated, Any, Literal

from cyclopts import Parameter

from nano_llama.cli.common import Count, Output, Screen, facts, table
from nano_llama.cli.models import ModelPath, locate_model
from nano_llama.core.machine import peak_resident_bytes
from nano_llama.core.units import size_text
from nano_llama.vol3_engine.benchmark import Load, Speed, check_load, measure
from nano_llama.vol3_engine.roofline import read_bandwidth
from nano_llama.vol3_engine.settings import EngineSettings


def run(
    *,
    model: ModelPath,
    prompt_tokens: Annotated[Count | None, Parameter(show_default=False)] = None,
    new_tokens: Count = 64,
    batch_size: Count = 1,
    repeats: Count = 3,
    threads: Annotated[Count | None, Parameter(show_default=False)] = None,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    quantization: str | None = None,
    kv_cache_dtype: Literal["auto", "float32", "bfloat16", "int8"] = "auto",
    output: Output | None = None,
) -> int:
    """Tokens a second of reading prompts and of writing, on this CPU, and the share of the roofline that is reached.

    To write a token the weights and the text's keys and values must come from memory: the roofline is the speed at
    which they could, by the read speed that is measured here. Prompts hold random tokens; the likeliest is taken.

    Parameters
    ----------
    prompt_tokens
        Tokens of each prompt; by default 512, or what new_tokens leave of the model's context.
    new_tokens
        Tokens to write after each prompt.
    batch_size
        Texts at once.
    repeats
        Rounds, after one that warms up; the median is shown.
    threads
        By default one for each core that this process may use.
    dtype
        auto: the file's own numbers, quantized ones as they are. Others: what the weights become.
    quantization
        int8, int4 or a scheme such as "int4,head=int8": quantize while loading.
    kv_cache_dtype
        Keys and values; auto: float32 with --dtype float32, else bfloat16.
    """
    screen = Screen(output)
    settings = EngineSettings(
        device="cpu", dtype=dtype, quantization=quantization, kv_cache_dtype=kv_cache_dtype, num_threads=threads
    )
    from nano_llama.formats import read_config
    from nano_llama.vol3_engine.cpu.runner import CpuRunner

    path = locate_model(model, screen)
    context = read_config(path).max_position_embeddings
    load = Load(batch_size, prompt_tokens or max(1, min(512, context - new_tokens)), new_tokens, repeats)
    check_load(load, context)
    screen.say(f"Loading {path} ...", style="dim")
    runner = CpuRunner.load(
        path, dtype, settings.kv_cache_dtype, settings.num_threads, quantization=settings.quantization
    )
    runner.time_phases()
    screen.say("Measuring; other work on this machine disturbs the figures.", style="dim")
    speed = measure(runner, load, watch=lambda text: screen.say(text, style="dim"))
    peak = peak_resident_bytes()  # before the next line takes memory of its own
    bandwidth = read_bandwidth(runner.threads)
    used = {
        "dtype": dtype,
        "quantization": quantization,
        "kv_cache_dtype": runner.kv_cache_dtype,
        "threads": runner.threads,
    }
    data = {"model": model, **used, **figures(speed, bandwidth), "peak_memory_bytes": peak or None}
    screen.result(data, *shown(speed, bandwidth, used, peak))
    return 0


def figures(speed: Speed, bandwidth: float) -> dict[str, Any]:
    """For --json. Bytes are those of a step over all texts, at the middle of the decoding."""
    load, roofline = speed.load, speed.roofline(bandwidth)
    return {
        "batch_size": load.batch,
        "prompt_tokens": load.prompt_tokens,
        "new_tokens": load.new_tokens,
        "prefill_tokens_per_second": speed.prefill_tokens_per_second,
        "decode_tokens_per_second": speed.decode_tokens_per_second,
        "step_seconds": speed.step_seconds,
        "weight_bytes": speed.weight_bytes,
        "kv_bytes": speed.kv_bytes,
        "bytes_per_token": speed.bytes_per_token,
        "bandwidth_bytes_per_second": bandwidth,
        "roofline_tokens_per_second": roofline,
        "roofline_share": speed.decode_tokens_per_second / roofline,
        "parts_seconds": speed.parts,
    }


def shown(speed: Speed, bandwidth: float, used: dict[str, Any], peak: int) -> list[Any]:
    """For people: the speeds, then where a step's time goes."""
    load, roofline = speed.load, speed.roofline(bandwidth)
    texts = f"{load.batch} texts at once" if load.batch > 1 else "one text"
    share = speed.decode_tokens_per_second / roofline
    rows = {
        "measured with": f"{used['threads']} threads, {texts}, keys and values in {used['kv_cache_dtype']}",
        "reading": f"{speed.prefill_tokens_per_second:,.0f} tokens/s (prompts of {load.prompt_tokens:,})",
        "writing": f"{speed.decode_tokens_per_second:,.1f} tokens/s ({1000 * speed.step_seconds:.2f} ms a step)",
        "bytes a token": f"{size_text(speed.bytes_per_token)} ({size_text(speed.weight_bytes)} of weights and "
        f"{size_text(speed.kv_bytes)} of keys and values a step)",
        "memory reads": f"{bandwidth / 1e9:.1f} GB/s",
        "roofline": f"{roofline:,.1f} tokens/s; {share:.0%} of it reached",
        "peak memory": size_text(peak) if peak else None,
    }
    parts = sorted(speed.parts.items(), key=lambda part: -part[1])
    lines = [(name, round(1000 * seconds, 3), f"{seconds / speed.step_seconds:.0%}") for name, seconds in parts]
    return [facts(rows), "", table(("part of a step", "ms", "share"), lines)]
