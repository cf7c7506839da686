"""`nano-llama bench`: how fast this machine runs a model, and how fast its memory bandwidth would allow.

Not here: the measurement (vol3_engine/benchmark.py), comparison with other engines (bench/).
Tests: tests/cli/test_bench.py.
"""

from contextlib import closing
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from nano_llama.cli.common import Count, Output, Screen, facts, table
from nano_llama.cli.models import ModelPath, locate_model
from nano_llama.core.machine import CpuUse, peak_resident_bytes
from nano_llama.core.units import size_text
from nano_llama.vol3_engine.benchmark import Load, Speed, check_load, measure
from nano_llama.vol3_engine.roofline import read_bandwidth
from nano_llama.vol3_engine.settings import EngineSettings

EXAMPLE = "nano_gpt"  # of dispatch.py


def run(
    model: ModelPath,
    *,
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
    """Prefill and decode speed on this CPU, in tokens/s, and the fraction of the roofline that is reached.

    To decode a token, the weights and the sequence's keys and values must be read from memory. The roofline is the
    speed at which the measured memory bandwidth delivers them. Prompts are random tokens, decoding is greedy.

    Parameters
    ----------
    prompt_tokens
        Tokens per prompt (default: 512, or what new_tokens leave of the model's context).
    new_tokens
        Tokens to decode after each prompt.
    batch_size
        Number of sequences that run together.
    repeats
        Number of measured rounds, after one to warm up; the median is reported.
    threads
        CPU threads (default: one per core that this process may use).
    dtype
        Number format of the weights; auto: as stored in the file, quantized or not.
    quantization
        Quantize while loading: int8, int4 or a scheme such as "int4,head=int8".
    kv_cache_dtype
        Number format of the KV cache; auto: float32 with --dtype float32, else bfloat16.
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
    screen.say(f"Loading {model} ...", style="dim")
    runner = CpuRunner.load(
        path, dtype, settings.kv_cache_dtype, settings.num_threads, quantization=settings.quantization
    )
    runner.time_phases()
    screen.say("Measuring. Other work on this machine distorts the figures.", style="dim")
    use = CpuUse()
    with closing(runner):
        speed = measure(runner, load, on_round=lambda n: screen.say(f"round {n} of {repeats}", style="dim"))
    peak = peak_resident_bytes()  # before the next line allocates memory of its own
    bandwidth = read_bandwidth(runner.threads)
    used = {
        "dtype": dtype,
        "quantization": quantization,
        "kv_cache_dtype": runner.kv_cache_dtype,
        "threads": runner.threads,
    }
    data = {"model": model, **used, **figures(speed, bandwidth), "peak_memory_bytes": peak or None}
    noise = use.sentence("the figures are lower than they would be alone.")
    screen.result(data | {"noise": noise}, *shown(speed, bandwidth, used, peak))
    if noise:
        screen.say(f"\n{noise}", "yellow")
    return 0


def figures(speed: Speed, bandwidth: float) -> dict[str, Any]:
    """For --json. Bytes are those of a step over all sequences, halfway through decoding."""
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
        "parts_seconds": speed.phases,
    }


def shown(speed: Speed, bandwidth: float, used: dict[str, Any], peak: int) -> list[Any]:
    """For the terminal: the speeds, then where the time of a step goes."""
    load, roofline = speed.load, speed.roofline(bandwidth)
    share = speed.decode_tokens_per_second / roofline
    rows = {
        "measured with": f"{used['threads']} threads, batch size {load.batch}, KV cache in {used['kv_cache_dtype']}",
        "prefill": f"{speed.prefill_tokens_per_second:,.0f} tokens/s (prompts of {load.prompt_tokens:,} tokens)",
        "decode": f"{speed.decode_tokens_per_second:,.1f} tokens/s ({1000 * speed.step_seconds:.2f} ms per step)",
        "bytes per token": f"{size_text(speed.bytes_per_token)} (per step {size_text(speed.weight_bytes)} of weights "
        f"and {size_text(speed.kv_bytes)} of keys and values)",
        "memory bandwidth": f"{bandwidth / 1e9:.1f} GB/s",
        "roofline": f"{roofline:,.1f} tokens/s; {share:.0%} of it reached",
        "peak memory": size_text(peak) if peak else None,
    }
    phases = sorted(speed.phases.items(), key=lambda phase: -phase[1])
    lines = [(name, round(1000 * seconds, 3), f"{seconds / speed.step_seconds:.0%}") for name, seconds in phases]
    return [facts(rows), "", table(("phase of a step", "ms", "share"), lines)]
