"""Our models inside lm-evaluation-harness (Gao et al., package lm-eval): an adapter for its tasks.

`run_tasks` runs tasks by name; one whose data would have to come from a hub that cannot be reached is skipped, with the
reason. Extra `eval`. Tests: tests/evaluation/test_harness.py, on a task of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core.errors import UserError, import_extra
from nano_llama.core.sampling import SamplingParams
from nano_llama.tokenizer import Tokenizer


@dataclass(frozen=True)
class TaskResult:
    """A task's metrics, as {"acc": 0.25, "acc_stderr": 0.01}; or `skipped`, the reason why there are none."""

    task: str
    metrics: dict[str, float]
    examples: int = 0
    skipped: str | None = None


def run_tasks(
    model: str | Path,
    tasks: Sequence[str],
    *,
    task_folder: str | Path | None = None,
    limit: int | None = None,
    device: str = "auto",
    batch_size: int = 16,
) -> list[TaskResult]:
    """Run lm-evaluation-harness's tasks on a model, each by itself.

    task_folder: with task files (.yaml) of your own. limit: this many examples per task; the figures are then only a
    trial. Raises UserError for a task that does not exist, EnvironmentFault without lm-eval.
    """
    lm_eval = import_extra("lm_eval", "eval", "Running lm-evaluation-harness's tasks")
    manager = import_extra("lm_eval.tasks", "eval", "Running tasks").TaskManager(
        include_path=None if task_folder is None else str(task_folder)
    )
    for task in tasks:
        if task not in manager.all_tasks:
            raise UserError(f"lm-evaluation-harness has no task {task!r}.", hint="See  lm-eval ls tasks")
    adapter = make_adapter(Scorer.load(model, device, batch_size))
    results = []
    for task in tasks:
        try:
            manager.load([task])
        except Exception as error:  # the libraries beneath raise a dozen kinds where the hub is out of reach
            results.append(TaskResult(task, {}, skipped=_reason(error)))
            continue
        found = lm_eval.simple_evaluate(adapter, tasks=[task], task_manager=manager, limit=limit, log_samples=False)
        metrics = {
            name.removesuffix(",none"): float(value)
            for name, value in found["results"][task].items()
            if isinstance(value, int | float) and name.endswith(",none")
        }
        results.append(TaskResult(task, metrics, examples=found["n-samples"][task]["effective"]))
    return results


def _reason(error: BaseException) -> str:
    """Why a task could not be loaded, in one line."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"its data is not available here ({type(error).__name__}: {line[:150]})"


class Scorer:
    """A Volume 2 model and its tokenizer: log-likelihoods of continuations, and greedy text."""

    def __init__(self, model: Any, tokenizer: Tokenizer, batch_size: int = 16):
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self.context: int = model.config.max_position_embeddings

    @classmethod
    def load(cls, path: str | Path, device: str = "auto", batch_size: int = 16) -> "Scorer":
        import_extra("torch", "eval", "Evaluating")
        from nano_llama.vol2_torch import Llama
        from nano_llama.vol2_torch.device import resolve_device

        return cls(
            Llama.from_pretrained(path, device=resolve_device(device)), Tokenizer.from_pretrained(path), batch_size
        )

    @property
    def start(self) -> int:
        """The token before a text without context: BOS, else what ends documents. Raises UserError."""
        for token in (self.tokenizer.bos_id, self.tokenizer.eos_id):
            if token is not None:
                return token
        raise UserError("The tokenizer has no token that begins or ends a text.", hint="lm-eval's tasks need one.")

    def encode(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Ids of a context and of its continuation, split so that both together are the tokens of the whole text.

        Spaces at the context's end belong to the continuation, as a byte-level token begins with its space.
        """
        blanks = len(context) - len(context.rstrip())
        if blanks:
            context, continuation = context[:-blanks], context[-blanks:] + continuation
        if not context:
            return [self.start], self.tokenizer.encode(continuation, add_bos=False)
        before = self.tokenizer.encode(context)
        return before, self.tokenizer.encode(context + continuation)[len(before) :]

    def score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """For each (context ids, continuation ids): log p(continuation | context), and whether it is the greedy one."""
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
        results: list[tuple[float, bool]] = [(0.0, True)] * len(pairs)
        for begin in range(0, len(order), self.batch_size):
            members = order[begin : begin + self.batch_size]
            for index, result in zip(members, self._score_batch([pairs[i] for i in members]), strict=True):
                results[index] = result
        return results

    def _score_batch(self, pairs: Sequence[tuple[list[int], list[int]]]) -> Iterator[tuple[float, bool]]:
        """Rows are padded at their ends, where the causal mask makes padding harmless."""
        import torch

        texts = [[*context, *continuation][-(self.context + 1) :] for context, continuation in pairs]
        tokens = np.zeros((len(texts), max(len(text) - 1 for text in texts)), np.int64)  # (B,T)
        for row, text in zip(tokens, texts, strict=True):
            row[: len(text) - 1] = text[:-1]
        with torch.no_grad():
            log_probs = self.model(torch.from_numpy(tokens).to(self.model.device)).float().log_softmax(-1).cpu()
        for row_probs, text, (_, continuation) in zip(log_probs, texts, pairs, strict=True):
            count = min(len(continuation), len(text) - 1)
            targets = torch.tensor(text[len(text) - count :], dtype=torch.long)  # (C,)
            rows = row_probs[len(text) - 1 - count : len(text) - 1]  # (C,V)
            picked = rows.gather(1, targets[:, None])
            yield float(picked.double().sum()), bool((rows.argmax(-1) == targets).all())

    def rolling(self, text: str) -> float:
        """log p of a whole text: every token counted once, the last window with as much context as fits."""
        ids, start = self.tokenizer.encode(text, add_bos=False), self.start
        pairs = []
        for begin in range(0, len(ids), self.context):
            end = min(begin + self.context, len(ids))
            first = max(end - self.context, 0)
            before = [start] if first == 0 else [ids[first - 1]]
            pairs.append(([*before, *ids[first:begin]], ids[begin:end]))
        return sum(value for value, _ in self.score(pairs))

    def write(self, prompts: Sequence[str], stops: Sequence[list[str]], max_tokens: Sequence[int]) -> list[str]:
        """Greedy continuations, each up to its stop strings; a prompt that is too long loses its beginning."""
        from nano_llama.vol3_engine.llm import LLM

        llm = LLM.from_model(self.model, self.tokenizer)
        wanted, params = [], []
        for prompt, stop, tokens in zip(prompts, stops, max_tokens, strict=True):
            room = min(tokens, self.context // 2)
            wanted.append(self.tokenizer.encode(prompt)[-(self.context - room) :] or [self.start])
            params.append(SamplingParams(temperature=0.0, max_tokens=room, stop=tuple(stop) or None))
        return [output.text for output in llm.generate(wanted, params)]


def check_greedy(settings: Mapping[str, Any]) -> None:
    """Refuse a task's settings that would change the answers and are not honoured here."""
    if settings.get("do_sample") or (settings.get("temperature") or 0) > 0 or (settings.get("num_beams") or 1) > 1:
        raise UserError(
            f"The task asks for answers that are sampled ({dict(settings)!r:.200}); here all are greedy.",
            hint="Leave the task out.",
        )


def make_adapter(scorer: Scorer) -> Any:
    """The scorer as a model of the harness."""
    base = import_extra("lm_eval.api.model", "eval", "Running tasks").LM

    class Adapter(base):  # type: ignore[misc, valid-type]
        """Requests of the harness, each with its `args`, answered in their order."""

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            return scorer.score([scorer.encode(*request.args) for request in requests])

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            return [scorer.rolling(request.args[0]) for request in requests]

        def generate_until(self, requests: list[Any]) -> list[str]:
            settings = [dict(request.args[1]) for request in requests]
            for each in settings:
                check_greedy(each)
            stops = [[s] if isinstance(s := each.get("until") or [], str) else list(s) for each in settings]
            lengths = [int(each.get("max_gen_toks") or 256) for each in settings]
            return scorer.write([request.args[0] for request in requests], stops, lengths)

    return Adapter()
