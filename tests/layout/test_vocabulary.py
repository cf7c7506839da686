"""The field's words: names that were replaced stay away, and so do phrases that a reader has to read twice.

NAMES says where an old name is gone; elsewhere many of them are good words. Checked are the names that code defines
(functions, classes, arguments, variables, attributes) and the phrases that people read (comments, docstrings,
messages, pages). What may stay is in EXCEPTIONS, with the reason.
"""

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

from helpers import prose
from helpers.prose import SOURCES, texts

ENGINE, KERNELS = "nano_llama/vol3_engine/*", "nano_llama/vol3_engine/cpu/*"
TRAINING, VOLUMES_1_2, CLI = "nano_llama/training/*", "nano_llama/vol[12]_*", "nano_llama/cli/*"

# where -> {old name: what it is called now}
NAMES: dict[str, dict[str, str]] = {
    ENGINE: {
        "chapter": "prefix_id", "num_chapters": "num_hashed_blocks", "ROOT": "EMPTY_PREFIX", "News": "TokenEvent",
        "Mailbox": "an on_event callback", "_piece": "chunk_size", "choosing": "sampling",
        "prompts_differ": "separate_prefill", "prompt_rows": "prefill_rows", "Shape": "Capacity", "Angles": "RopeTable",
        "arrange": "fill", "_furnish": "_allocate_workspace", "Room": "Workspace", "Own": "ThreadWorkspace",
        "alone": "replicated", "sieve": "prefilter", "_kept": "evictable", "_emptied": "free_list",
    },
    "nano_llama/vol3_engine/blocks.py": {
        "take": "allocate", "find": "lookup", "remember": "register", "release": "free", "share": "acquire",
        "references": "ref_counts",
    },
    "nano_llama/vol3_engine/scheduler.py": {"plan": "schedule"},
    KERNELS: {
        "first_lanes": "select_first", "exp_roughly": "exp_approx", "keep_apart": "noinline",
        "keep_together": "always_inline", "meet": "barrier", "breathe": "cpu_relax", "give_way": "yield_cpu",
        "read_now": "atomic_load", "write_now": "atomic_store", "add_and_get": "fetch_add", "Team": "ThreadPool",
        "RECALLED": "STOP", "ABANDONED": "CANCELLED", "has_room": "has_32_vector_registers",
        "foresee": "prefetch", "FORESEEN": "PREFETCH_...", "row_sums": "accumulators", "no_sums": "zeros",
        "add_to_rows": "fma_rows", "forget": "init_partial", "fold": "merge_partial", "one_token": "gemv",
        "dot_product": "gemm_int8", "prompt_product": "gemm_bf16_amx", "float_product": "gemm_float",
        "product_of_tiles": "a gemm", "is_small": "is_4bit", "least": "min_acc", "dot_whole": "dot_signed",
        "ZERO_TAKEN_OFF": "SIGNED_WEIGHTS", "give_back": "release_pages", "spread": "broadcast",
        "nearest": "round_to_int32", "largest": "reduce_max",
        "FEW": "a name that says of what", "TOGETHER": "a name that says of what", "TILE": "a name that says of what",
    },
    "nano_llama/vol3_engine/cpu/simd/intrinsics.py": {"total": "reduce_add"},
    "nano_llama/vol3_engine/cpu/jit/*": {"rest": "spin_wait"},
    TRAINING: {
        "forget": "zero_grad", "sum_nats": "eval_loss_sum", "averaged": "use_averaged_weights",
        "_keeping": "checkpoint_on_error", "_go_on_from": "_restore", "remark": "notice", "Timekeeper": "EndReserve",
        "CtrlC": "GracefulInterrupt", "attend_across": "document_mask", "apart": "document_mask",
        "Sampler": "SampleLogger", "PATIENCE": "MIN_LOSSES",
    },
    "nano_llama/training/preflight.py": {
        "narrow": "compute_bytes", "attended": "attention_bytes", "beside": "host_copy",
    },
    VOLUMES_1_2: {
        "Pair": "OpPair", "shares": "shards", "run_shares": "run_shards", "Tiles": "QueryTiles, QueryKeyTiles",
        "TILE": "a name that says of what", "KEEP": "MAX_KEPT_KEYS", "sum_nats": "eval_loss_sum",
        "judged": "eval_model", "averaged": "use_averaged_weights", "recomputed": "checkpointed",
        "PATIENCE": "GROWTH_INTERVAL", "lean_head_loss": "chunked_head_loss", "wants_lean": "wants_chunks",
    },
    CLI: {
        "Verb": "Command", "VERBS": "COMMANDS", "run_verb": "run_command", "QUESTIONS": "FLAG_ACTIONS",
        "Speaker": "TextGenerator", "speak": "stream_to_screen", "roll": "generate_past_context",
        "leave_in_peace": "ignore_late_interrupts", "_forget_stdout": "_stdout_to_devnull", "all": "all_rows",
    },
}  # fmt: skip

# A file that was replaced -> where its content is now. (moved.py keeps old modules importable.)
FILES = {
    "core/settings.py": "core/env.py",
    "training/timekeeper.py": "training/end_reserve.py",
    "verify/suspects.py": "verify/permutation_check.py",
    "verify/fidelity.py": "verify/divergence.py",
    "vol1_numpy/ops/tables.py": "vol1_numpy/ops/registry.py",
    "vol1_numpy/parallel.py": "vol1_numpy/data_parallel.py",
    "vol1_numpy/study_model.py": "studies/study_model.py",
    "vol2_torch/peak.py": "vol2_torch/peak_flops.py",
    "vol2_torch/recompute.py": "vol2_torch/activation_checkpointing.py",
    "vol2_torch/scaling.py": "vol2_torch/loss_scaling.py",
    "vol3_engine/kernels": "vol3_engine/cpu/kernels",
    "vol3_engine/cpu/kernels/attention_few.py": "vol3_engine/cpu/kernels/attention_decode.py",
    "vol3_engine/cpu/kernels/attention_tiles.py": "vol3_engine/cpu/kernels/attention_amx.py",
    "vol3_engine/cpu/kernels/dot_product.py": "vol3_engine/cpu/kernels/gemm_int8.py",
    "vol3_engine/cpu/kernels/float_product.py": "vol3_engine/cpu/kernels/gemm_float.py",
    "vol3_engine/cpu/kernels/prompt_product.py": "vol3_engine/cpu/kernels/gemm_bf16_amx.py",
    "vol3_engine/cpu/kernels/tile_product.py": "vol3_engine/cpu/kernels/gemm_int8_amx.py",
    "vol3_engine/cpu/jit/compiled.py": "vol3_engine/cpu/jit/jit.py",
    "vol3_engine/cpu/jit/cache.py": "vol3_engine/cpu/jit/compile_cache.py",
    "vol3_engine/cpu/jit/clock.py": "vol3_engine/cpu/jit/cycle_counter.py",
    "vol3_engine/cpu/jit/threads.py": "vol3_engine/cpu/jit/thread_pool.py",
    "vol3_engine/cpu/tier.py": "vol3_engine/cpu/isa.py",
    "cli/numpy_speaker.py": "vol3_engine/runner/numpy.py",
    "cli/rolling.py": "cli/past_context.py",
}

NOUN = "tokens?|bytes?|weight|parameter|step|line|character|second|row|window|layer|file|figure|element|thread|head"
# What nobody writes any more (a pattern) -> what to write.
PHRASES = {
    rf"(?<!which )\b(?:nats|bytes|bits|tokens|numbers|FLOPs?|GFLOPs?|operations|seconds|threads) an? (?:{NOUN})\b":
        "per token, per byte, tokens/s",
    r"\btok/s\b": "tokens/s",
    r"\bexists already\b": "already exists",
    r"\bThere is no (?:verb|device|study|command|split|optimizer|\w* ?preset)\b": "Unknown ...",
    r"\bThere is no model at\b": "Model not found: ...",
    r"(?<![Tt]here )\b(?:is|are) no (?!longer|more|less|such|faster|slower|good|help)": "is not a ...",
    r"\b(?:[Hh]e|[Hh]is|[Hh]im|[Hh]imself)\b": "they, or the word itself: the user, the caller",
    r"\b(?:[Gg]ive it|[Ss]ave it) anew\b": "again",
    r"\bnot to be had\b": "is not supported",
    r"\bverbs?\b": "command",
    r"\b(?:plain|naive) twins?\b": "reference",
    r"\bwaited for for\b": "would block",
}  # fmt: skip
MOST_WITH_NON_GOALS = 1 / 3  # of the modules: "Not here: ..." stands only where a reader would look there first

# (files, old name or phrase found) -> why it may stay.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("bench/*", "bits a byte"): "a key of the published bench/results/quantization.json",
    ("bench/*", "tok/s"): "keys of the published bench/results/quantization.json",
    ("nano_llama/evaluation/samples.py", "h[ei]*"): "prompts",
    ("nano_llama/verify/checkpoint.py", "he"): "a text to tokenize",
    ("tests/layout/test_vocabulary.py", "*"): "the words themselves",
}


def is_excepted(path: str, word: str) -> bool:
    return any(fnmatch(path, where) and fnmatch(word.lower(), old) for (where, old) in EXCEPTIONS)


@cache
def defined_names(path: Path) -> frozenset[str]:
    """The names that a file defines: functions, classes, arguments, variables, attributes."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return frozenset(names)


def old_names(path: Path) -> Iterator[str]:
    relative = str(path.relative_to(prose.ROOT))
    for where, renamed in NAMES.items():
        if fnmatch(relative, where):
            for old in sorted(renamed.keys() & defined_names(path)):
                if not is_excepted(relative, old):
                    yield f"{relative}: {old} is now {renamed[old]}"


def old_phrases(path: Path) -> Iterator[str]:
    relative = str(path.relative_to(prose.ROOT))
    for text in texts(path):
        text = " ".join(text.split())
        for pattern, better in PHRASES.items():
            for found in re.finditer(pattern, text):
                if not is_excepted(relative, found[0]):
                    near = text[max(found.start() - 30, 0) : found.end() + 30]
                    yield f"{relative}: ...{near}... (write: {better})"


def test_replaced_names_stay_away():
    assert not [line for path in SOURCES for line in old_names(path)]


def test_replaced_files_stay_away():
    package = prose.ROOT / "nano_llama"
    assert not [old for old in FILES if (package / old).exists()]
    assert not [new for new in FILES.values() if not (package / new).exists()], "what replaced them is there"


def test_non_goals_are_rare():
    modules = [path for path in SOURCES if path.is_relative_to(prose.ROOT / "nano_llama")]
    stated = [path for path in modules if "Not here:" in (ast.get_docstring(ast.parse(path.read_text())) or "")]
    assert len(stated) <= MOST_WITH_NON_GOALS * len(modules)


def test_phrases_that_stumble_stay_away():
    names = (
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "LEADERBOARD.md",
        "docs/serving.md",
        "docs/finetuning.md",
        "docs/pictures.md",
    )
    pages = [*(prose.ROOT / name for name in names), *(prose.ROOT / "docs" / "start").glob("*.md")]
    assert not [line for path in [*SOURCES, *pages] for line in old_phrases(path)]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("class News: ...", "News is now TokenEvent"),
        ("def f(chapter): ...", "chapter is now prefix_id"),
        ('"""The loss in nats a token."""', "nats a token"),
    ],
)
def test_what_is_old_is_found(tmp_path, monkeypatch, source, says):
    path = tmp_path / "nano_llama" / "vol3_engine" / "x.py"
    path.parent.mkdir(parents=True)
    path.write_text(source)
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    assert any(says in line for line in [*old_names(path), *old_phrases(path)])
