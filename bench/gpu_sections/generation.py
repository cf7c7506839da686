"""The engine on a card with random weights of real shapes: prefill and decode, beside transformers in the same process.

Decode is what memory allows at most: the share is (weights + half of the new keys and values, with the prompt's) per
step over the measured copy bandwidth.
"""

import statistics
from collections.abc import Callable
from typing import Any

import torch
import transformers

from gpu_sections.measure import copy_bandwidth, peak_gb, start_afresh, wall_seconds
from gpu_sections.peers import their_model
from gpu_sections.report import Place, Report
from nano_llama import LLM, LlamaConfig, SamplingParams
from nano_llama.core.presets import model_preset
from nano_llama.vol2_torch import Llama
from nano_llama.vol3_engine.runner.torch import TorchRunner

PROMPT, TURNS = 512, 3
BATCHES = (1, 64)


def generate_135m(place: Place, report: Report) -> None:
    speeds(place, report, "125m", "135M")


def generate_1b(place: Place, report: Report) -> None:
    speeds(place, report, "1b", "1B")


def generate_8b(place: Place, report: Report) -> None:
    speeds(place, report, "8b", "8B")


def speeds(place: Place, report: Report, preset: str, shape: str) -> None:
    """tokens/s of prefill and decode for each batch size, ours and transformers' eager model of the same shape."""
    device = place.device
    config = model_preset(place.pick(preset, "tiny"), max_position_embeddings=2048, rope_scaling=None)
    bandwidth = copy_bandwidth(device)
    report.note("copy TB/s", bandwidth / 1e12)
    report.note("parameters", config.num_parameters)
    for batch in place.pick(BATCHES, (1, 3)):
        found, memory = {}, {}
        for name, speeds_of in (("engine", ours), ("transformers", theirs)):
            start_afresh(device)
            with report.attempt(f"{shape}, batch {batch}, {name}"):
                found[name] = speeds_of(place, config, batch)
                memory[name] = peak_gb(device)
        if "engine" in found:
            share = found["engine"][1] / roofline(config, batch, place, bandwidth)
            peer = found.get("transformers", (float("nan"),) * 2)
            gb = ", ".join(f"{name} {used:.1f} GB" for name, used in memory.items())
            what = f"{shape}, random weights in bf16, batch {batch}"
            report.row(f"{what}: prefill of {prompt_of(place)} tokens each", found["engine"][0], "tokens/s",
                       beside=f"transformers eager {peer[0]:,.0f}; {gb}")  # fmt: skip
            report.row(f"{what}: decode", found["engine"][1], "tokens/s",
                       beside=f"transformers eager {peer[1]:,.0f}; {share:.0%} of what memory allows")  # fmt: skip


def prompt_of(place: Place) -> int:
    return place.pick(PROMPT, 16)


def new_tokens_of(place: Place) -> int:
    """Few: the present engine launches kernel by kernel."""
    return place.pick(16, 4)


def roofline(config: LlamaConfig, batch: int, place: Place, bandwidth: float) -> float:
    """tokens/s if reading memory took all the time."""
    looked_up = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
    assert config.num_key_value_heads and config.head_dim, "LlamaConfig fills these in"
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim  # keys and values
    cached = batch * per_token * (prompt_of(place) + new_tokens_of(place) / 2)
    return batch * bandwidth / (2 * (config.num_parameters - looked_up + cached))


def both_speeds(place: Place, batch: int, generate: Callable[[int], Any]) -> tuple[float, float]:
    """generate(n): n tokens after each prompt. -> tokens/s of prefill and of decode, medians of turns."""
    new = new_tokens_of(place)
    generate(2)  # warms up
    first = statistics.median(wall_seconds(lambda: generate(1), place.device) for _ in range(TURNS))
    whole = statistics.median(wall_seconds(lambda: generate(1 + new), place.device) for _ in range(TURNS))
    return batch * prompt_of(place) / first, batch * new / max(whole - first, 1e-9)


def ours(place: Place, config: LlamaConfig, batch: int) -> tuple[float, float]:
    """LLM over the Torch runner, as LLM(path, device="cuda", dtype="bfloat16") composes it."""
    prompts = torch.randint(config.vocab_size, (batch, prompt_of(place))).tolist()
    runner = TorchRunner(our_model(config, place.device), shared=False)
    memory = 2 * batch * runner.kv_bytes_per_token * (prompt_of(place) + new_tokens_of(place) + 32)
    llm = LLM.from_runner(runner, None, max_num_seqs=batch, kv_cache_memory=memory, prefix_caching=False,
                          max_num_batched_tokens=place.pick(8192, 64))  # fmt: skip
    with llm:
        return both_speeds(
            place, batch, lambda n: llm.generate(prompts, SamplingParams(temperature=0, max_tokens=n, ignore_eos=True))
        )


def our_model(config: LlamaConfig, device: torch.device) -> Llama:
    """Random weights, drawn on the card: NumPy would take a minute for 8B."""
    with torch.device("meta"):
        model = Llama(config)
    model = model.to(torch.bfloat16).to_empty(device=device)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.dim() == 1 else 0.0, 0.02)
    return model.requires_grad_(False)


def theirs(place: Place, config: LlamaConfig, batch: int) -> tuple[float, float]:
    """Their eager model with their cache, and the argmax of each step."""
    model = their_model(config, place.device)
    prompts = torch.randint(config.vocab_size, (batch, prompt_of(place)), device=place.device)

    @torch.no_grad()
    def generate(count: int) -> None:
        tokens, cache = prompts, None
        for _ in range(count):
            out = model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
            tokens, cache = out.logits[:, -1:].argmax(-1), out.past_key_values

    return both_speeds(place, batch, generate)


def compiled_1b(place: Place, report: Report) -> None:
    """transformers' own fast path: a static cache, and its step compiled into CUDA graphs."""
    config = model_preset(place.pick("1b", "tiny"), max_position_embeddings=2048)
    model = their_model(config, place.device)
    step = model if place.rehearse else torch.compile(model, mode="reduce-overhead")
    for batch in place.pick(BATCHES, (1,)):
        prompts = torch.randint(config.vocab_size, (batch, prompt_of(place)), device=place.device)
        cache = transformers.StaticCache(config=model.config, max_cache_len=prompt_of(place) + 2 + new_tokens_of(place))

        @torch.no_grad()
        def generate(count: int, prompts: torch.Tensor = prompts, cache: Any = cache) -> None:
            cache.reset()
            out = model(input_ids=prompts, past_key_values=cache, logits_to_keep=1)
            for _ in range(count - 1):
                tokens = out.logits[:, -1:].argmax(-1)
                out = step(input_ids=tokens, past_key_values=cache)

        with report.attempt(f"transformers compiled, batch {batch}"):
            prefill, decode = both_speeds(place, batch, generate)
            report.row(f"1B, random weights in bf16, batch {batch}: transformers compiled, decode", decode, "tokens/s",
                       beside=f"prefill {prefill:,.0f}")  # fmt: skip
