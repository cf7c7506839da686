"""`chat` through a pipe: what is remembered, changed and dropped, with a model that answers by rule."""

import io
import json

import pytest

from helpers.adapters import save_adapter_of
from nano_llama.cli import chat
from nano_llama.cli.common import Screen
from nano_llama.cli.conversation import Conversation
from nano_llama.cli.lines import LineReader
from nano_llama.core.presets import model_preset
from nano_llama.core.sampling import SamplingParams
from nano_llama.tokenizer import Tokenizer
from nano_llama.vol3_engine.outputs import CompletionOutput, RequestOutput, TextPiece

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}me: "
TEXT = "the quick brown fox jumps over the lazy dog. " * 40


class Echo:
    """Answers a conversation with its number of messages and its last words; remembers what it was asked."""

    def __init__(self):
        backend = Tokenizer.train_bpe([TEXT], 300)
        self.tokenizer = Tokenizer(backend.backend, backend.roles, TEMPLATE)
        self.config = model_preset("tiny", vocab_size=300, max_position_embeddings=2048)
        self.asked: list[list[dict[str, str]]] = []
        self.params: list[SamplingParams] = []
        self.interrupt_after: int | None = None
        self.finish_reason = "stop"

    def stream(self, prompt, sampling_params=None):
        self.asked.append([dict(message) for message in prompt])
        self.params.append(sampling_params)
        words = [f"{len(prompt)}:", *prompt[-1]["content"].split()]
        for count, word in enumerate(words):
            if count == self.interrupt_after:
                self.interrupt_after = None
                raise KeyboardInterrupt
            output = None
            if count == len(words) - 1:
                output = RequestOutput("0", None, [], [CompletionOutput(0, " ".join(words), [0], self.finish_reason)])
            yield TextPiece(word + ("" if output else " "), count, output)


@pytest.fixture
def echo(monkeypatch):
    llm = Echo()

    def load_llm(path, compute, adapter):
        llm.path, llm.adapter = path, adapter
        return llm

    monkeypatch.setattr(chat, "load_llm", load_llm)
    return llm


@pytest.fixture
def talk(cli, tiny_chat_model, monkeypatch, echo):
    def run(*lines, args=()):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return cli("chat", "--model", tiny_chat_model, *args)

    return run


def contents(messages):
    return [message["content"] for message in messages]


def test_later_questions_see_the_conversation(talk, echo):
    done = talk("hello", "", "how are you")
    assert done.code == 0
    assert done.out == "1: hello\n3: how are you\n"
    assert contents(echo.asked[1]) == ["hello", "1: hello", "how are you"]
    assert "tokens/s" in done.err
    assert "Traceback" not in done.err


def test_json_is_the_whole_conversation(talk):
    done = talk("hello", args=("--json", "--quiet", "--system", "be kind"))
    assert contents(done.json["messages"]) == ["be kind", "hello", "2: hello"]
    assert done.json["answers"][0]["new_tokens"] == 2
    assert done.err == "2: hello\n", "the dialogue goes where it does not disturb"


def test_lines_and_blocks(talk, echo):
    talk("one\\", "two", '"""', "a", "", "b", '"""', " /usr is a folder")
    assert [messages[-1]["content"] for messages in echo.asked] == ["one\ntwo", "a\n\nb", "/usr is a folder"]


def test_regenerate_drops_the_answer_and_takes_another_seed(talk, echo):
    done = talk("hello", "/regenerate", "/retry", args=("--seed", 5))
    assert done.out == "1: hello\n" * 3
    assert [contents(asked) for asked in echo.asked] == [["hello"]] * 3
    assert [params.seed for params in echo.params] == [5, 6, 7]


def test_regenerate_warns_where_it_cannot_differ(talk):
    done = talk("hello", "/retry 3", args=("--temperature", 0))
    assert "Temperature 0" in done.err
    assert done.out == "1: hello\n" * 2  # one more, not three that are the same


def test_edit_replaces_the_last_message(talk, echo):
    done = talk("first", "secnd", "/edit second", "/edit", "third", "more")
    assert "Your last message was:\nsecond" in done.err
    assert [contents(asked)[-1] for asked in echo.asked] == ["first", "secnd", "second", "third", "more"]
    assert contents(echo.asked[-1]) == ["first", "1: first", "third", "3: third", "more"]


def test_system(talk, echo):
    done = talk("/system", "/system be brief", "a", "/system -", "b", args=("--system", "be kind"))
    assert "System prompt: be kind" in done.err
    assert [asked[0]["role"] for asked in echo.asked] == ["system", "user"]
    assert contents(echo.asked[0]) == ["be brief", "a"]


def test_new_and_help_and_quit(talk, echo):
    done = talk("a", "/new", "b", "/help", "/quit", "never read")
    assert [contents(asked) for asked in echo.asked] == [["a"], ["b"]]
    for command in ("/edit", "/regenerate", "/system", "/save", "/quit"):
        assert command in done.err


def test_save(talk, tmp_path):
    file = tmp_path / "talk.json"
    done = talk("a", f"/save {file}", f"/save {file}", "/save", "/save " + str(tmp_path / "talk.json" / "x"))
    assert contents(json.loads(file.read_text())["messages"]) == ["a", "1: a"]
    assert "already exists" in done.err
    assert "needs a file name" in done.err
    assert done.code == 0


def test_retry_n_times(talk, echo):
    done = talk("hello", "/retry 3", "/retry x", args=("--seed", 5))
    assert [params.seed for params in echo.params] == [5, 6, 7, 8]
    assert "/retry x: how often?" in done.err


def test_set_changes_the_answers_that_follow(talk, echo):
    lines = ("a", "/set temperature 0.25", "/set parameter top_k=7", "/set stop END", "/set seed none", "b", "/set")
    done = talk(*lines, args=("--seed", 5))
    first, last = echo.params
    assert (first.temperature, first.top_k, first.stop, first.seed) == (0.8, 0, None, 5)
    assert (last.temperature, last.top_k, last.stop, last.seed) == (0.25, 7, ("END",), None)
    assert "temperature: 0.25" in done.err and "repetition_penalty" in done.err
    assert done.out == "1: a\n3: b\n"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("/set temprature 1", "Did you mean temperature?"),
        ("/set temperature -1", "temperature=-1 must be at least 0"),
        ("/set temperature warm", "temperature='warm' must be a number"),
        ("/sve x", "Did you mean /save?"),
        ("/load", "needs a file name"),
        ("/load nowhere.json", "nowhere.json"),
        ("/undo", "There is no message yet"),
    ],
)
def test_a_wrong_command_names_the_right_one(talk, line, says):
    done = talk(line, "hello")
    assert says in done.err
    assert done.out == "1: hello\n"


@pytest.mark.parametrize("word", ["/quit", "/exit", "/bye", "/q"])
def test_every_way_to_leave(talk, word):
    assert talk("a", word, "never read").out == "1: a\n"


def test_undo_clear_and_stats(talk, echo):
    done = talk("a", "b", "/undo", "c", "/stats", "/clear", "d")
    assert [contents(asked) for asked in echo.asked] == [["a"], ["a", "1: a", "b"], ["a", "1: a", "c"], ["d"]]
    assert "Taken back: b" in done.err
    used = len(echo.tokenizer.encode_chat([*echo.asked[2], {"role": "assistant", "content": "3: c"}]))
    assert f"{used} of 2,048 tokens" in done.err and "3, 6 tokens in" in done.err


def test_a_saved_conversation_is_loaded_and_continued(talk, echo, tmp_path):
    file = tmp_path / "talk.json"
    talk("a", f"/save {file}", args=("--system", "be kind"))
    done = talk("x", f"/load {file}", "b")
    assert contents(echo.asked[-1]) == ["be kind", "a", "2: a", "b"]
    assert "Loaded 1 turn. The last: a" in done.err


@pytest.mark.parametrize(
    "messages", ["{}", '[{"role": "assistant"}]', '{"messages": [{"role": "user", "content": "a"}]}']
)
def test_what_is_no_conversation_is_not_loaded(talk, echo, tmp_path, messages):
    (tmp_path / "odd.json").write_text(messages)
    done = talk(f"/load {tmp_path / 'odd.json'}", "hello")
    assert "is not a conversation" in done.err and contents(echo.asked[-1]) == ["hello"]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("/re", ["/regenerate", "/reset", "/retry"]),
        ("/set te", ["temperature"]),
        ("/save {}/ta", ["{}/talk.json", "{}/talks/"]),
        ("hello /re", []),
        ("hello", []),
    ],
)
def test_tab(tmp_path, echo, line, offered):
    (tmp_path / "talk.json").touch()
    (tmp_path / "talks").mkdir()
    talk = chat.Chat(Screen(), echo, SamplingParams(), Conversation(), LineReader(Screen().out))
    line = line.format(tmp_path)
    assert talk.reader.complete(line, line.split(" ")[-1]) == [name.format(tmp_path) for name in offered]


@pytest.mark.parametrize("line", ["/regenerate", "/edit x", "/retry", "/nonsense", "/edit"])
def test_an_impossible_command_is_reported_and_the_chat_goes_on(talk, line):
    done = talk(line, "hello")
    assert done.code == 0
    assert "error:" in done.err
    assert done.out == "1: hello\n"


def test_an_interrupted_answer_is_kept(talk, echo):
    echo.interrupt_after = 2
    done = talk("tell me more of it", "go on")
    assert done.code == 0
    assert "stopped" in done.err
    assert contents(echo.asked[1]) == ["tell me more of it", "1: tell ", "go on"]


def test_the_oldest_turns_are_dropped_with_a_message(talk, echo):
    echo.config = echo.config.replace(max_position_embeddings=64)
    lines = [f"the quick brown fox jumps {number}" for number in range(5)]
    done = talk(*lines, args=("--max-tokens", 10))
    assert "dropped" in done.err
    assert contents(echo.asked[0])[0] == lines[0]
    last = contents(echo.asked[-1])
    assert last[-1] == lines[-1]
    assert len(last) < 9
    assert len(echo.tokenizer.encode_chat(echo.asked[-1])) <= 64 - 10


@pytest.mark.parametrize(("max_tokens", "limit"), [(4, "max_tokens"), (10, "the end of the context")])
def test_which_limit_ended_an_answer_is_told(talk, echo, max_tokens, limit):
    echo.finish_reason = "length"
    assert f"stopped at {limit}]" in talk("three more words", args=("--max-tokens", max_tokens)).err


def test_a_failed_answer_leaves_the_conversation_as_it_was(cli, tiny_chat_model, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr("sys.stdin", io.StringIO("the\n" + "dog " * 200 + "\nfox\n"))
    done = cli("chat", "--model", tiny_chat_model, "--max-tokens", 3, "--json", "--temperature", 0)
    assert "context" in done.err
    assert [m["content"] for m in done.json["messages"] if m["role"] == "user"] == ["the", "fox"]


@pytest.mark.parametrize("engine", ["engine", "numpy"])
def test_a_real_model_answers(cli, tiny_chat_model, monkeypatch, engine):
    pytest.importorskip("torch")
    monkeypatch.setattr("sys.stdin", io.StringIO("the quick\nfox\n"))
    args = ("--max-tokens", 5, "--json", "--temperature", 0, "--engine", engine)
    done = cli("chat", "--model", tiny_chat_model, *args).json
    generate = ("--prompt", "the quick", "--chat", "--max-tokens", 5, "--json", "--temperature", 0)
    first = cli("generate", "--model", tiny_chat_model, *generate).json
    assert done["messages"][1]["content"] == first["text"]
    assert len(done["answers"]) == 2


def test_a_model_without_a_chat_template(cli, tiny_model):
    pytest.importorskip("torch")
    done = cli("chat", "--model", tiny_model)
    assert done.code == 2
    assert "chat template" in done.err
    assert "nano-llama generate" in done.err


def test_a_model_that_reads_images_is_sent_to_generate(cli, tiny_model_with_eyes):
    done = cli("chat", "--model", tiny_model_with_eyes)
    assert done.code == 2 and "generate --model" in done.err and "--image FILE" in done.err


def test_an_adapter_says_which_model_it_is_of(cli, tiny_chat_model, monkeypatch, echo, tmp_path):
    adapter = save_adapter_of(tiny_chat_model, tmp_path / "adapter")
    for model in ([], ["--model", tiny_chat_model]):
        monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))
        done = cli("chat", *model, "--adapter", adapter, "--json")
        assert (echo.path, echo.adapter) == (tiny_chat_model, adapter)
        assert (done.json["model"], done.json["adapter"]) == (str(tiny_chat_model), str(adapter))
    done = cli("chat")
    assert done.code == 2 and "--model is missing" in done.err
