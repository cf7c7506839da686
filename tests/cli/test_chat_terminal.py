"""`chat` in a real terminal (a pseudo terminal driven by pexpect): prompts, Ctrl-C, edit, regenerate, leaving."""

import os
import sys

import pytest

pexpect = pytest.importorskip("pexpect")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo terminals are Unix's")

COMMAND = "import sys; from nano_llama.cli import main; sys.exit(main())"
LEFT = 60  # seconds: a busy machine is slow


class Terminal:
    """A running chat."""

    def __init__(self, *args, term="xterm", patience=LEFT):
        env = {**os.environ, "TERM": term, "NO_COLOR": "1", "COLUMNS": "200"}
        words = ["-c", COMMAND, "chat", *map(str, args)]
        self.child = pexpect.spawn(
            sys.executable, words, encoding="utf-8", env=env, timeout=patience, dimensions=(50, 200)
        )

    def expect(self, *patterns):
        """Wait for these, one after the other; returns what came before the last."""
        for pattern in patterns:
            self.child.expect(pattern)
        return self.child.before

    def say(self, text):
        self.child.sendline(text)

    def ctrl_c(self):
        self.child.sendintr()

    def leaves_with(self, code):
        self.child.expect(pexpect.EOF)
        self.child.close()
        assert "Traceback" not in self.child.before
        assert self.child.exitstatus == code


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_conversation(tiny_chat_model, term):
    chat = Terminal("--model", tiny_chat_model, "--max-tokens", 6, "--engine", "numpy", term=term)
    chat.expect("/help", "you> ")
    chat.say("the quick")
    chat.expect(r"\[\d+ tokens", "you> ")
    chat.say("/regenerate")
    chat.expect(r"\[\d+ tokens", "you> ")
    chat.say("/edit the lazy dog")
    chat.expect(r"\[\d+ tokens", "you> ")
    chat.say("/edit")
    chat.expect("edit> the lazy dog")
    chat.say(" sleeps")  # readline put the old text there, so this goes to its end
    chat.expect(r"\[\d+ tokens", "you> ")
    chat.say('"""')
    chat.expect(r"\.\.\.> ")
    chat.say('over"""')
    chat.expect(r"\[\d+ tokens", "you> ")
    chat.say("/system be brief")
    chat.expect("System prompt: be brief", "you> ")
    chat.say("/quit")
    chat.leaves_with(0)


def test_the_edited_line_is_the_new_message(tiny_chat_model, tmp_path):
    chat = Terminal("--model", tiny_chat_model, "--max-tokens", 2, "--engine", "numpy")
    chat.expect("you> ")
    chat.say("the lazy")
    chat.expect("tokens", "you> ")
    chat.say("/edit")
    chat.expect("edit> the lazy")
    chat.say(" dog")
    chat.expect("tokens", "you> ")
    chat.say(f"/save {tmp_path / 'talk.json'}")
    chat.expect("Saved", "you> ")
    assert '"the lazy dog"' in (tmp_path / "talk.json").read_text()
    chat.child.sendeof()
    chat.leaves_with(0)


def test_ctrl_c_stops_the_answer_and_not_the_program(make_tiny, tmp_path):
    model = make_tiny(tmp_path / "long", chat=True, max_position_embeddings=100_000)
    endless = (
        "--max-tokens",
        90_000,
        "--temperature",
        0,
    )  # greedy: a drawn token might end it first
    chat = Terminal("--model", model, *endless, "--engine", "numpy")
    chat.expect("you> ")
    chat.say("the quick")
    chat.expect("the quick", r"\S+ \S+ ")  # its echo, then an answer that would last for minutes
    chat.ctrl_c()
    chat.expect("stopped", "you> ")
    chat.say("/system still here")
    chat.expect("System prompt: still here", "you> ")
    chat.ctrl_c()
    chat.expect("Press Ctrl-C again to leave", "you> ")
    chat.say("/system and here")
    chat.expect("System prompt: and here", "you> ")
    chat.ctrl_c()
    chat.expect("Press Ctrl-C again to leave", "you> ")
    chat.ctrl_c()
    chat.leaves_with(0)


@pytest.mark.slow  # a real model writes 400 tokens in float32
def test_smollm2(smollm2):
    pytest.importorskip("torch")
    chat = Terminal("--model", smollm2, "--max-tokens", 400, "--temperature", 0, patience=300)
    chat.expect("you> ")
    chat.say("What is the capital of France?")
    assert "Paris" in chat.expect(r"\[\d+ tokens")
    chat.expect("you> ")
    chat.say("Write a very long story about a lighthouse.")
    chat.expect("lighthouse", "lighthouse")  # the echo, and the story
    chat.ctrl_c()
    chat.expect("stopped", "you> ")
    chat.say("/edit What is the capital of Italy?")
    assert "Rome" in chat.expect(r"\[\d+ tokens")
    chat.expect("you> ")
    chat.say("/regenerate")
    assert "Rome" in chat.expect(r"\[\d+ tokens")
    chat.expect("you> ")
    chat.child.sendeof()
    chat.leaves_with(0)
