"""`generate`: the text, the figures beside it, and the prompts that cannot be used."""

import io

import pytest

from helpers.adapters import save_adapter_of
from nano_llama import LLM, SamplingParams
from nano_llama.formats import read_config
from nano_llama.tokenizer import Tokenizer
from nano_llama.vol1_numpy import Llama

pytest.importorskip("torch")


def greedy(*more):
    return ("--temperature", 0, "--max-tokens", 12, *more)


def test_text_on_stdout_messages_on_stderr(cli, tiny_model):
    done = cli("generate", "--model", tiny_model, "--prompt", "the quick", *greedy())
    expected = LLM(tiny_model).generate("the quick", SamplingParams(temperature=0.0, max_tokens=12))[0].text
    assert done.code == 0
    assert done.out == expected + "\n"
    assert "Loading" in done.err
    assert "12 new tokens" in done.err


def test_ctrl_c_ends_the_line_of_the_text(capsys):
    from nano_llama.cli.common import Screen
    from nano_llama.cli.generate import stream_to_screen
    from nano_llama.cli.wrapped import WrappedText
    from nano_llama.vol3_engine.outputs import TextPiece

    def pieces():
        yield TextPiece("half a sen", 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream_to_screen(pieces(), WrappedText(Screen().out))
    assert capsys.readouterr().out == "half a sen\n"


def test_json(cli, tiny_model):
    done = cli("generate", "--model", tiny_model, "--prompt", "the quick", "--json", "--quiet", *greedy())
    result = done.json
    assert done.err == ""
    assert len(result["token_ids"]) == result["new_tokens"] == 12
    assert result["prompt_tokens"] == len(Tokenizer.from_pretrained(tiny_model).encode("the quick"))
    assert result["finish_reason"] == "length"
    assert result["tokens_per_second"] > 0
    assert Tokenizer.from_pretrained(tiny_model).decode(result["token_ids"], continues=True) == result["text"]


@pytest.mark.parametrize("engine", ["engine", "torch", "numpy"])
def test_every_engine_gives_the_same_greedy_text(cli, tiny_model, engine):
    done = cli("generate", "--model", tiny_model, "--prompt", "the lazy", "--engine", engine, "--json", *greedy())
    expected = LLM(tiny_model).generate("the lazy", SamplingParams(temperature=0.0, max_tokens=12))[0]
    assert done.json["token_ids"] == expected.token_ids
    assert done.json["text"] == expected.text


@pytest.mark.parametrize("engine", ["engine", "torch", "numpy"])
def test_an_adapter_beside_the_model(cli, tiny_model, tmp_path, engine):
    """The text of the merged model, by Volume 1; the adapter says which model it is of."""
    adapter = save_adapter_of(tiny_model, tmp_path / "adapter")
    done = cli("generate", "--adapter", adapter, "--prompt", "the lazy", "--engine", engine, "--json", *greedy())
    merged = LLM.from_model(Llama.from_pretrained(tiny_model, adapter=adapter), Tokenizer.from_pretrained(tiny_model))
    expected = merged.generate("the lazy", SamplingParams(temperature=0.0, max_tokens=12))[0]
    assert done.json["token_ids"] == expected.token_ids
    assert (done.json["model"], done.json["adapter"]) == (str(tiny_model), str(adapter))
    base = cli("generate", "--model", tiny_model, "--prompt", "the lazy", "--json", *greedy())
    assert base.json["token_ids"] != expected.token_ids


@pytest.mark.parametrize("engine", ["engine", "numpy"])
def test_the_same_seed_gives_the_same_text(cli, tiny_model, engine):
    def run(seed):
        args = ("--prompt", "the", "--seed", seed, "--max-tokens", 8, "--engine", engine, "--json")
        return cli("generate", "--model", tiny_model, *args).json

    assert run(5)["token_ids"] == run(5)["token_ids"] != run(6)["token_ids"]
    assert run(5)["seed"] == 5


def test_a_random_seed_is_reported_and_repeatable(cli, tiny_model):
    first = cli("generate", "--model", tiny_model, "--prompt", "the", "--max-tokens", 8, "--json").json
    again = ("--seed", first["seed"], "--max-tokens", 8, "--json")
    assert cli("generate", "--model", tiny_model, "--prompt", "the", *again).json["token_ids"] == first["token_ids"]


def test_stop_strings(cli, tiny_model):
    whole = cli("generate", "--model", tiny_model, "--prompt", "the", "--json", *greedy()).json["text"]
    stop = whole[3:5]
    cut = cli(
        "generate", "--model", tiny_model, "--prompt", "the", "--json", "--stop", "zzzz", "--stop", stop, *greedy()
    )
    assert cut.json["text"] == whole[: whole.index(stop)]
    assert cut.json["finish_reason"] == "stop"


def test_more_tokens_than_the_model_can_see_are_told_before(cli, tiny_chat_model):
    """A text goes on beyond the context, an answer ends with it: what is said of both is what they do."""
    context = read_config(tiny_chat_model).max_position_embeddings
    many = ("--model", tiny_chat_model, "--prompt", "dog", "--temperature", 0)
    text = cli("generate", *many, "--max-tokens", context + 20, "--json")
    assert f"is more than the model's context of {context:,}" in text.err and f"last {context // 2:,} alone" in text.err
    assert text.json["new_tokens"] == context + 20 and "stopped at --max-tokens" in text.err
    answer = cli("generate", *many, "--chat", "--max-tokens", 3 * context, "--json")
    assert "the text ends where it is full" in answer.err
    assert answer.json["new_tokens"] + answer.json["prompt_tokens"] in (context, context + 1)
    assert "the model's context was full" in answer.err
    assert "context" not in cli("generate", *many, "--max-tokens", 5).err


def test_the_prompt_from_stdin(cli, tiny_model, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("the quick\n"))
    piped = cli("generate", "--model", tiny_model, "--prompt", "-", "--json", *greedy()).json
    assert piped["prompt"] == "the quick"
    given = cli("generate", "--model", tiny_model, "--prompt", "the quick", "--json", *greedy()).json
    assert piped["token_ids"] == given["token_ids"]


def test_chat_goes_through_the_template(cli, tiny_chat_model):
    done = cli("generate", "--model", tiny_chat_model, "--prompt", "dog", "--chat", "--json", *greedy())
    ids = Tokenizer.from_pretrained(tiny_chat_model).encode_chat([{"role": "user", "content": "dog"}])
    assert done.json["prompt_tokens"] == len(ids)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--prompt", ""], "--prompt is empty"),
        (["--prompt", "bad \udcff byte"], "position 4"),
        (["--prompt", "x", "--temperature", "-1"], "temperature=-1"),
        (["--prompt", "x", "--top-p", "2"], "top_p=2"),
        (["--prompt", "x", "--top-k", "-7"], "top_k=-7"),
        (["--prompt", "x", "--max-tokens", "0"], "--max-tokens"),
        (["--prompt", "x", "--seed", "-1"], "seed=-1"),
        (["--prompt", "x", "--seed", "1.5"], "1.5"),
        (["--prompt", "x", "--device", "toaster"], "toaster"),
        (["--prompt", "x", "--engine", "steam"], "steam"),
        (["--prompt", "x", "--engine", "numpy", "--device", "cuda"], "cuda"),
        (["--prompt", "x", "--engine", "numpy", "--dtype", "float16"], "float16"),
        (["--prompt", "x", "--chat"], "chat template"),
        (["--prompt", "the " * 100], "context"),
        ([], "generate needs --prompt."),
    ],
)
def test_invalid_options_are_refused(cli, tiny_model, args, says):
    done = cli("generate", "--model", tiny_model, *args)
    assert done.code == 2
    assert done.out == ""
    assert says in done.err
    assert "Traceback" not in done.err
    assert "inside nano-llama" not in done.err


def test_a_character_that_the_model_has_never_seen(cli, tiny_char_model):
    done = cli("generate", "--model", tiny_char_model, "--prompt", "the Ж")
    assert done.code == 2
    assert "Ж" in done.err


@pytest.mark.parametrize("content", [None, b"", b"junk", b"GGUF" + bytes(50), b"\x08\0\0\0\0\0\0\0{}      ", "folder"])
def test_a_path_that_is_not_a_model(cli, tmp_path, content):
    path = tmp_path / "model"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    done = cli("generate", "--model", path, "--prompt", "x")
    assert done.code == 2
    assert str(path) in done.err
    assert "inside nano-llama" not in done.err


def test_without_torch_only_the_torch_engine_is_missing(cli, tiny_model, monkeypatch):
    from nano_llama.cli import engines

    monkeypatch.setattr(engines, "has_torch", lambda: False)
    done = cli("generate", "--model", tiny_model, "--prompt", "x", "--engine", "torch", *greedy())
    assert done.code == 1
    assert "[train]" in done.err
    assert "leave --engine out" in done.err
    assert cli("generate", "--model", tiny_model, "--prompt", "the", *greedy()).code == 0


def test_quantization_is_for_the_engine_only(cli, make_tiny, tmp_path):
    model = make_tiny(tmp_path / "m", hidden_size=64, intermediate_size=96)
    told = ("generate", "--model", model, "--prompt", "the", *greedy())
    assert cli(*told, "--quantization", "int8", "--threads", 1).code == 0
    done = cli(*told, "--quantization", "int8", "--engine", "numpy")
    assert done.code == 2 and "--quantization int8 is for --engine engine" in done.err
    assert "'int3' is not known" in cli(*told, "--quantization", "int3").err


@pytest.mark.slow  # a real model reads its prompt and answers
def test_smollm2_answers(cli, smollm2):
    question = (
        "--chat",
        "--prompt",
        "What is the capital of France?",
        "--json",
        "--temperature",
        0,
        "--max-tokens",
        20,
    )
    assert "Paris" in cli("generate", "--model", smollm2, *question).json["text"]


def test_the_default_model(cli):
    done = cli("generate", "--prompt", "Once upon a time", "--json", "--engine", "numpy", *greedy())
    assert done.code == 0 and done.json["model"] == "nano_gpt"


def test_image(cli, tmp_path):
    image = pytest.importorskip("PIL.Image")
    from helpers.vision_models import picture, save_tiny
    from nano_llama.tokenizer.image_token import with_image_token

    words = Tokenizer.train_bpe(["what colour is the shape? red or blue"] * 3, 280)
    folder, files = tmp_path / "model", [tmp_path / "a.png", tmp_path / "b.png"]
    save_tiny(
        folder, tokenizer=with_image_token(words), vocab_size=words.vocab_size + 1, image_token_id=words.vocab_size
    )
    for seed, file in enumerate(files):
        image.fromarray(picture(seed)).save(file)
    engine = ("--model", folder, "--engine", "numpy", "--json", "--quiet", *greedy())
    with LLM(folder, runner="numpy", num_threads=1) as llm:
        params = SamplingParams(temperature=0.0, max_tokens=12)
        both = {"prompt": "<image><image>red", "images": [picture(0), picture(1)]}
        one = {"prompt": "red <image>", "images": [picture(1)]}
        expected = [llm.generate(prompt, params)[0].token_ids for prompt in (both, one)]
    done = cli("generate", "--image", files[0], "--image", files[1], "--prompt", "red", *engine)
    assert done.json["token_ids"] == expected[0] and done.json["images"] == [str(file) for file in files]
    done = cli("generate", "--image", files[1], "--prompt", "red <image>", *engine)
    assert done.json["token_ids"] == expected[1]
    done = cli("generate", "--image", tmp_path / "none.png", "--prompt", "red", *engine)
    assert done.code == 2 and "Image not found" in done.out and "one of PNG" in done.out


def test_a_picture_for_a_model_that_reads_text_is_refused(cli, tiny_model):
    done = cli("generate", "--model", tiny_model, "--image", "any.png", "--prompt", "What is this?")
    assert done.code == 2 and "reads text only" in done.err and "eyes-cpu" in done.err
    assert "Loading" not in done.err, "before the weights are read"
