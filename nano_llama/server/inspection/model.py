"""GET /inspect/model: what is served, in one object: shape, special tokens, the engine's settings, the limits.

Tests: tests/server/page/test_inspect_model.py.
"""

from typing import TYPE_CHECKING, Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from nano_llama.core.version import VERSION
from nano_llama.server.errors import json_response
from nano_llama.server.inspection.limits import MAX_GRID, MAX_REPLAYED, MAX_TOKENS, TOP
from nano_llama.server.usage import service_of
from nano_llama.vol3_engine.blocks import BLOCK_SIZE

if TYPE_CHECKING:
    from nano_llama.tokenizer import Tokenizer
    from nano_llama.vol3_engine.llm import LLM

REPLAY, VOLUMES = "/inspect/replay", "/inspect/volumes"  # offered where the model came from a file
ROOFLINE = "/inspect/roofline"  # offered where the engine's own steps are shown, and no trace


async def model(http: HttpRequest) -> Response:
    service = service_of(http)
    config, tokenizer = service.llm.config, service.llm.tokenizer
    shape = {
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.intermediate_size,
    }
    paths = [route.path for route in http.app.routes if route.path.startswith("/inspect/")]
    no_file = service.replayer is None
    absent = {REPLAY: no_file, VOLUMES: no_file, ROOFLINE: service.trace is not None}
    return json_response(
        {
            "model": service.model_ids[0],
            "models": list(service.model_ids),
            "version": VERSION,
            "chat": bool(tokenizer and tokenizer.chat_templates),
            "vocab_size": config.vocab_size,
            "context": config.max_position_embeddings,
            "parameters": config.num_parameters,
            "shape": shape,
            "tied": config.tie_word_embeddings,
            "tokenizer": None if tokenizer is None else of_tokenizer(tokenizer),
            "engine": of_engine(service.llm),
            "limits": {
                "tokens": MAX_TOKENS,
                "replayed": MAX_REPLAYED,
                "grid": MAX_GRID,
                "top": TOP,
                "logprobs": service.settings.max_logprobs,
            },
            "endpoints": [path for path in paths if not absent.get(path)],
        }
    )


def of_tokenizer(tokenizer: "Tokenizer") -> dict[str, Any]:
    special = {number: tokenizer.backend.added_tokens[number].content for number in sorted(tokenizer.special_ids)}
    return {
        "kind": tokenizer.kind,
        "byte_level": tokenizer.byte_level,
        "bos_id": tokenizer.bos_id,
        "eos_id": tokenizer.eos_id,
        "stop_ids": sorted(tokenizer.stop_ids),
        "special": [{"id": number, "text": text} for number, text in special.items()],
    }


def of_engine(llm: "LLM") -> dict[str, Any]:
    scheduler = llm.engine.scheduler
    return {
        "runner": type(llm.engine.runner).__name__,
        "max_num_seqs": scheduler.max_num_seqs,
        "max_num_batched_tokens": scheduler.max_num_batched_tokens,
        "block_size": BLOCK_SIZE,
        "num_blocks": scheduler.pool.num_blocks,
        "prefix_caching": scheduler.prefix_caching,
    }
