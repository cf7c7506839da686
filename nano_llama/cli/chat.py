"""`nano-llama chat`: a conversation in the terminal.

Ctrl-C while the model answers stops the answer and keeps what there is of it; twice in a row at the prompt, it leaves.
Not here: the rules of the history (conversation.py), reading lines (lines.py).
Tests: tests/cli/test_chat.py, and in a real terminal tests/cli/test_chat_terminal.py.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from nano_llama.cli.adapters import find_model
from nano_llama.cli.common import Count, Output, Screen, printable
from nano_llama.cli.conversation import Conversation
from nano_llama.cli.engines import Compute, Sampling, conversation_length, load_llm
from nano_llama.cli.generate import check_text, speed
from nano_llama.cli.lines import LineReader
from nano_llama.cli.models import ModelPath
from nano_llama.core.errors import NanoLlamaError, UserError
from nano_llama.core.files import write_json
from nano_llama.core.sampling import SamplingParams
from nano_llama.formats import reads_images

if TYPE_CHECKING:
    from nano_llama.vol3_engine.llm import LLM

HELP = """\
/edit [TEXT]      change your last message (without TEXT: edit it) and get a new answer
/regenerate       get another answer to your last message (also /retry)
/system [TEXT]    set the system prompt (without TEXT: show it); - removes it
/new              start a new conversation
/save FILE        save the conversation as JSON
/help             show this list
/quit             leave (also Ctrl-D, or Ctrl-C twice)
A line that ends with \\ continues on the next; \"\"\" begins a block of lines and \"\"\" ends it.
Ctrl-C stops an answer. To send a line that begins with / put a space before it."""


def run(
    model: ModelPath | None = None,
    *,
    adapter: Annotated[Path | None, Parameter(show_default=False)] = None,
    system: str | None = None,
    max_tokens: Count = 512,
    sampling: Sampling | None = None,
    compute: Compute | None = None,
    output: Output | None = None,
) -> int:
    """Talk with an instruct model in the terminal. Type /help there.

    Without a terminal, each line of stdin is a message. With --json the conversation is printed at the end.

    Parameters
    ----------
    model
        A Hugging Face folder, a .gguf, the folder of a training run or a hub name (org/name). By default the model that
        --adapter was trained on.
    adapter
        An adapter of the model, in PEFT's format: a folder with adapter_config.json.
    system
        System prompt.
    max_tokens
        Maximum length of an answer, in tokens.
    """
    screen = Screen(output)
    params = (sampling or Sampling()).params(max_tokens)
    if system is not None:
        check_text(system, "--system")
    path = find_model(model, adapter, screen)
    screen.say(f"Loading {path}{f' with {adapter}' if adapter else ''} ...", style="dim")
    llm = load_llm(path, compute or Compute(), adapter=adapter)
    if llm.tokenizer is None or llm.tokenizer.chat_template is None:
        image = "--image FILE " if reads_images(path) else ""
        raise UserError(
            f"{model or path} has no chat template: it continues text, it was not trained to answer.",
            hint=f'Use  nano-llama generate --model {model or path} {image}--prompt "..."',
        )
    screen.say("Type a message. /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.", style="dim")
    chat = Chat(screen, llm, params, Conversation(system), LineReader(shown=not screen.json))
    chat.loop()
    used = {"model": model or str(path), "adapter": adapter}
    screen.result({**used, "messages": chat.conversation.messages(), "answers": chat.figures})
    return 0


class Chat:
    """The loop: read a message or a command and answer it, until the user leaves."""

    def __init__(
        self, screen: Screen, llm: "LLM", params: SamplingParams, conversation: Conversation, reader: LineReader
    ):
        self.screen, self.llm, self.params = screen, llm, params
        self.conversation, self.reader = conversation, reader
        self.figures: list[dict[str, Any]] = []  # of every answer
        self.attempt = 0  # number of regenerations: each gets a seed of its own
        self.commands: dict[str, Callable[[str], None]] = {
            "/edit": self.edit,
            "/regenerate": self.regenerate,
            "/retry": self.regenerate,
            "/system": self.set_system_prompt,
            "/new": self.start_over,
            "/save": self.save,
            "/help": lambda _: self.screen.say(HELP),
        }

    def loop(self) -> None:
        """Until /quit, the end of input, or Ctrl-C twice in a row at the prompt."""
        interrupted = False
        while True:
            try:
                text = self.reader.message("you> ", "...> ")
                interrupted = False
                if text.strip() in ("/quit", "/exit"):
                    return
                if text.strip():
                    self.handle(text)
            except EOFError:
                if self.reader.interactive:
                    self.screen.say()
                return
            except KeyboardInterrupt:
                if interrupted:
                    self.screen.say()
                    return
                interrupted = True
                self.screen.say("\n(Press Ctrl-C again to leave; Ctrl-D and /quit work too.)", style="dim")

    def handle(self, text: str) -> None:
        """A command or a message. An error is shown and leaves the conversation as it was."""
        before = list(self.conversation.turns)
        try:
            if not text.startswith("/"):
                check_text(text, "The message")
                self.conversation.ask(text.strip())
                self.answer()
                return
            word, _, rest = text.strip().partition(" ")
            if word not in self.commands:
                hint = "/help lists the commands. To send this as a message, put a space before it."
                raise UserError(f"Unknown command {word}.", hint=hint)
            self.commands[word](rest.strip())
        except (NanoLlamaError, KeyboardInterrupt) as error:
            self.conversation.turns = before
            if isinstance(error, KeyboardInterrupt):
                raise
            self.screen.err.print(f"error: {printable(error)}", style="red")

    # -- answering ------------------------------------------------------------------------------------------------

    def answer(self) -> None:
        """Answer the last message."""
        self.make_room()
        params = self.params
        if params.seed is not None:
            params = params.replace(seed=params.seed + self.attempt)
        text, figures = self.stream_answer(params)
        self.conversation.answer(text)
        self.figures.append(figures)
        rate = figures["tokens_per_second"]
        ending = {"interrupted": ", stopped", "length": ", stopped at --max-tokens or the end of the context"}
        self.screen.say(
            f"[{figures['new_tokens']:,} tokens{f', {rate:,.1f} tokens/s' if rate else ''}"
            f"{ending.get(figures['finish_reason'], '')}]",
            style="dim",
        )

    def make_room(self) -> None:
        """Drop the oldest turns if the conversation and an answer no longer fit into the context."""
        context = self.llm.config.max_position_embeddings
        room = min(self.params.max_tokens or context, context // 4)
        dropped = self.conversation.fit(lambda m: conversation_length(self.llm, m), context - room)
        if dropped:
            turns = "turn was" if dropped == 1 else f"{dropped} turns were"
            self.screen.say(f"(The context of {context:,} tokens is full: the oldest {turns} dropped.)", "yellow")

    def stream_answer(self, params: SamplingParams) -> tuple[str, dict[str, Any]]:
        """Print an answer as it comes; Ctrl-C ends it. Returns its text and figures."""
        stream = sys.stderr if self.screen.json else sys.stdout
        text, count, reason = "", 0, "interrupted"
        began = first = time.perf_counter()
        try:
            for piece in self.llm.stream(self.conversation.messages(), params):
                count += 1
                if count == 1:
                    first = time.perf_counter()
                text += piece.text
                stream.write(printable(piece.text) if stream.isatty() else piece.text)
                stream.flush()
                if piece.output is not None:
                    reason = piece.output.outputs[0].finish_reason or reason
        except KeyboardInterrupt:
            pass
        ended = time.perf_counter()
        stream.write("\n")
        stream.flush()
        figures = {
            "new_tokens": count,
            "finish_reason": reason,
            "seconds": ended - began,
            "tokens_per_second": speed(count, ended - first),
        }
        return text, figures

    # -- commands -------------------------------------------------------------------------------------------------

    def edit(self, text: str) -> None:
        old = self.conversation.last_question
        if not text:
            if not self.reader.can_edit:
                self.screen.say(f"Your last message was:\n{old}")
            text = self.reader.message("edit> ", "...> ", before=old).strip()
        if not text:
            raise UserError("The message is empty. Nothing was changed.")
        check_text(text, "The message")
        self.conversation.reopen(text)
        self.answer()

    def regenerate(self, _: str) -> None:
        self.conversation.reopen()
        self.attempt += 1
        if self.params.is_greedy:
            self.screen.say("(Temperature 0: the answer will be the same. Restart with --temperature 0.8.)", "yellow")
        self.answer()

    def set_system_prompt(self, text: str) -> None:
        if text:
            check_text(text, "The system prompt")
            self.conversation.system = None if text == "-" else text
        shown = self.conversation.system
        self.screen.say(f"System prompt: {shown}" if shown else "There is no system prompt.")

    def start_over(self, _: str) -> None:
        self.conversation.turns.clear()
        self.screen.say("Started a new conversation.")

    def save(self, name: str) -> None:
        if not name:
            raise UserError("/save needs a file name.", hint="For example:  /save chat.json")
        path = Path(name).expanduser()
        if path.exists():
            raise UserError(f"{path} already exists.", hint="Choose another name.")
        write_json(path, {"messages": self.conversation.messages()})
        self.screen.say(f"Saved as {path}.")
