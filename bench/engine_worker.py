"""One engine in its own process, asked over a pipe. bench/engine.py starts several and compares them.

    python bench/engine_worker.py ENGINE MODEL '{"threads": 2}'

Each line on stdin is a question as JSON, each line on stdout an answer. Until an engine is created only the
standard library is imported: this file runs in the peers' environments too. All engines decode greedily.

    {"do": "run", "prompt": [ids], "new": n}         one stream: seconds to the first token, seconds of the n-1 others
    {"do": "batch", "prompts": [[ids]], "new": n}    all requests at once: seconds until the last is done
    {"do": "logits", ...}                            ours only: logits of given continuations
    {"do": "memory"}                                 peak resident bytes of this process
"""

import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

Ids = Sequence[int]


class Nano:
    """Our engine, as a user calls it. options: LLM's."""

    def __init__(self, path: str, threads: int, **options: Any):
        from nano_llama import LLM, SamplingParams

        self.params = SamplingParams
        self.llm = LLM(path, num_threads=threads, **options)

    def _greedy(self, new: int) -> Any:
        return self.params(temperature=0.0, max_tokens=new, ignore_eos=True)

    def run(self, prompt: Ids, new: int) -> dict[str, Any]:
        began = perf_counter()
        times, ids = [], []
        for piece in self.llm.stream(prompt, self._greedy(new)):
            times.append(perf_counter())
            ids.append(piece.token_id)
        return {"first": times[0] - began, "rest": times[-1] - times[0], "ids": ids}

    def batch(self, prompts: Sequence[Ids], new: int) -> dict[str, Any]:
        began = perf_counter()
        outputs = self.llm.generate(prompts, self._greedy(new))
        return {"seconds": perf_counter() - began, "ids": [list(output.token_ids) for output in outputs]}

    def logits(self, prompts: Sequence[Ids], continuations: Sequence[Ids], out: str) -> dict[str, Any]:
        """Teacher-forced: prefill the prompts, decode the continuations token by token -> out.npy, (P,T,V) float32."""
        import numpy as np

        from nano_llama.verify.divergence import next_token_logits

        np.save(out, next_token_logits(self.llm, prompts, continuations))
        return {}


class LlamaCpp:
    """llama.cpp through its C API. flash: its fused attention, faster for prompts, slower for long contexts."""

    def __init__(self, path: str, threads: int, flash: bool = False, slots: int = 1, context: int = 1024):
        import llama_cpp
        import numpy as np

        self.np, self.lib = np, llama_cpp
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), parameters)
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max = context * slots, slots
        settings.n_batch, settings.n_ubatch = 2048, 512
        settings.n_threads = settings.n_threads_batch = threads
        settings.flash_attn_type = int(flash)
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        assert self.model and self.context, f"llama.cpp cannot open {path}"
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.llama_batch = llama_cpp.llama_batch_init(2048, 0, 1)

    def _decode(self, rows: Sequence[tuple[int, int, int, bool]]) -> list[int]:
        """Rows of (token, position, slot, sampled) -> the likeliest next token of each sampled row."""
        for at in range(0, len(rows), 2048):
            part = rows[at : at + 2048]
            batch = self.llama_batch
            batch.n_tokens = len(part)
            for i, (token, position, slot, sampled) in enumerate(part):
                batch.token[i], batch.pos[i], batch.logits[i] = token, position, sampled
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, slot
            assert self.lib.llama_decode(self.context, batch) == 0, "llama.cpp cannot decode"
        where = [i for i, row in enumerate(part) if row[3]]
        pointers = [self.lib.llama_get_logits_ith(self.context, i) for i in where]
        return [int(self.np.ctypeslib.as_array(p, (self.vocabulary,)).argmax()) for p in pointers]

    def run(self, prompt: Ids, new: int) -> dict[str, Any]:
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)
        began = perf_counter()
        last = len(prompt) - 1
        tokens = self._decode([(token, i, 0, i == last) for i, token in enumerate(prompt)])
        first = perf_counter()
        for i in range(new - 1):
            tokens += self._decode([(tokens[-1], len(prompt) + i, 0, True)])
        return {"first": first - began, "rest": perf_counter() - first, "ids": tokens}

    def batch(self, prompts: Sequence[Ids], new: int) -> dict[str, Any]:
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)
        began = perf_counter()
        length = len(prompts[0])
        together = max(1, 2048 // length)  # prompts per call
        tokens: list[int] = []
        for at in range(0, len(prompts), together):
            group = list(enumerate(prompts))[at : at + together]
            tokens += self._decode([(t, i, slot, i == length - 1) for slot, p in group for i, t in enumerate(p)])
        for step in range(new - 1):
            tokens = self._decode([(token, length + step, slot, True) for slot, token in enumerate(tokens)])
        return {"seconds": perf_counter() - began}


class OpenVino:
    """OpenVINO GenAI, which reads the .gguf itself; with its default, paged attention."""

    def __init__(self, path: str, threads: int, **options: Any):
        import numpy as np
        import openvino
        import openvino_genai

        self.np, self.ov, self.genai = np, openvino, openvino_genai
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size, scheduler.max_num_seqs, scheduler.enable_prefix_caching = 2, 32, False
        scheduler.max_num_batched_tokens = 2048
        self.pipe = openvino_genai.LLMPipeline(
            path, "CPU", INFERENCE_NUM_THREADS=threads, scheduler_config=scheduler, **options
        )

    def _generate(self, prompts: Sequence[Ids], new: int) -> Any:
        config = self.genai.GenerationConfig(max_new_tokens=new, ignore_eos=True, do_sample=False)
        ids = self.np.array(prompts, self.np.int64)
        tensors = self.ov.Tensor(ids), self.ov.Tensor(self.np.ones_like(ids))
        return self.pipe.generate(self.genai.TokenizedInputs(*tensors), config)

    def run(self, prompt: Ids, new: int) -> dict[str, Any]:
        metrics = self._generate([prompt], new).perf_metrics
        rest = metrics.get_tpot().mean * (new - 1) if new > 1 else 0.0
        return {"first": metrics.get_ttft().mean / 1000, "rest": rest / 1000}

    def batch(self, prompts: Sequence[Ids], new: int) -> dict[str, Any]:
        began = perf_counter()
        self._generate(prompts, new)
        return {"seconds": perf_counter() - began}


class Transformers:
    """Hugging Face's model with its cache and PyTorch's fused attention."""

    def __init__(self, path: str, threads: int, dtype: str):
        import torch
        from transformers import AutoModelForCausalLM, DynamicCache

        torch.set_num_threads(threads)
        self.torch, self.cache = torch, DynamicCache
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype)).eval()

    def run(self, prompt: Ids, new: int) -> dict[str, Any]:
        with self.torch.inference_mode():
            cache = self.cache(config=self.model.config)
            began = perf_counter()
            tokens = [self._next(self.torch.tensor([list(prompt)]), cache)]
            first = perf_counter()
            for _ in range(new - 1):
                tokens.append(self._next(tokens[-1][None, None], cache))
            return {"first": first - began, "rest": perf_counter() - first, "ids": [int(token) for token in tokens]}

    def _next(self, ids: Any, cache: Any) -> Any:
        return self.model(ids, past_key_values=cache, logits_to_keep=1).logits[0, -1].argmax()


class Vllm:
    """vLLM's CPU build, in this process; vLLM itself caches the compiled graph between starts."""

    def __init__(self, path: str, threads: int, dtype: str, **options: Any):
        os.environ.update(
            VLLM_CPU_KVCACHE_SPACE="2", VLLM_CPU_OMP_THREADS_BIND=f"0-{threads - 1}", VLLM_CPU_NUM_OF_RESERVED_CPU="0",
            VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_NO_USAGE_STATS="1", HF_HUB_OFFLINE="1",
        )  # fmt: skip
        from vllm import LLM, SamplingParams

        self.params = SamplingParams
        given = {"max_model_len": 1024, "max_num_seqs": 32, "enable_prefix_caching": False, **options}
        self.llm = LLM(path, dtype=dtype, disable_log_stats=False, **given)

    def _generate(self, prompts: Sequence[Ids], new: int) -> Any:
        params = self.params(temperature=0.0, max_tokens=new, ignore_eos=True)
        return self.llm.generate([{"prompt_token_ids": list(p)} for p in prompts], params, use_tqdm=False)

    def run(self, prompt: Ids, new: int) -> dict[str, Any]:
        began = perf_counter()
        metrics = self._generate([prompt], new)[0].metrics
        seconds = perf_counter() - began
        rest = metrics.last_token_ts - metrics.first_token_ts
        return {"first": seconds - rest, "rest": rest}

    def batch(self, prompts: Sequence[Ids], new: int) -> dict[str, Any]:
        began = perf_counter()
        self._generate(prompts, new)
        return {"seconds": perf_counter() - began}


class Memory:
    """No engine: the current read speed of this machine's memory."""

    def __init__(self, path: str, threads: int):
        from nano_llama.vol3_engine.roofline import read_bandwidth

        self.measure = lambda: read_bandwidth(threads)

    def run(self, **_: Any) -> dict[str, Any]:
        return {"bytes_per_second": self.measure()}


ENGINES: dict[str, Any] = {
    "nano": Nano, "llama.cpp": LlamaCpp, "openvino": OpenVino, "transformers": Transformers, "vllm": Vllm,
    "memory": Memory,
}  # fmt: skip


def peak_bytes() -> int | None:
    """The largest resident size of this process so far; None where the system does not tell."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 if found else None


def main() -> None:
    name, model, options = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not reach the answers
    engine = ENGINES[name](model, **json.loads(options))
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        do = question.pop("do")
        answer = {"bytes": peak_bytes()} if do == "memory" else getattr(engine, do)(**question)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
