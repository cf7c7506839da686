"""/inspect/model (nano_llama/server/inspection/model.py): says of the model and the engine what they are."""

from helpers.api import bpe, random_llm, served
from helpers.stub_engine import ScriptedRunner
from nano_llama import LLM
from nano_llama.server.app import PAGE_ROUTES


def test_the_model_that_is_served(client, llm):
    found = client.get("/inspect/model").json()
    config, tokenizer = llm.config, bpe()
    assert (found["model"], found["chat"], found["context"]) == ("tiny", True, config.max_position_embeddings)
    assert found["shape"]["heads"] == 4 and found["shape"]["kv_heads"] == 2 and found["shape"]["layers"] == 2
    assert found["vocab_size"] == config.vocab_size and found["parameters"] == config.num_parameters
    assert found["tokenizer"]["special"] == [{"id": tokenizer.eos_id, "text": "<|endoftext|>"}]
    assert found["tokenizer"]["stop_ids"] == [tokenizer.eos_id]
    assert found["engine"]["num_blocks"] == llm.engine.scheduler.pool.num_blocks
    paths = {route.path for route in PAGE_ROUTES if route.path.startswith("/inspect/")}
    assert set(found["endpoints"]) == paths - {"/inspect/replay", "/inspect/volumes"}, "this model came from no file"


def test_a_model_without_a_tokenizer():
    with served(LLM.from_runner(ScriptedRunner(), None)) as client:
        found = client.get("/inspect/model").json()
    assert found["tokenizer"] is None and found["chat"] is False


def test_without_the_page_nothing_can_be_inspected():
    with served(random_llm(), page=False) as client:
        assert client.get("/inspect/model").status_code == 404
        assert client.get("/v1/models").status_code == 200
