"""`nano-llama chat`: a conversation in the terminal.

Ctrl-C while the model answers stops the answer and keeps what there is of it; twice in a row at the prompt, it leaves.
Not here: what begins with / (chat_commands.py), the rules of the history (conversation.py), reading lines (lines.py).
Tests: tests/cli/test_chat.py, test_chat_pictures.py, and in a real terminal tests/cli/test_chat_terminal.py.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from nano_llama.cli.adapters import find_model
from nano_llama.cli.chat_commands import LEAVE, Commands
from nano_llama.cli.common import Count, Output, Screen, printable
from nano_llama.cli.conversation import Conversation
from nano_llama.cli.engines import Compute, Sampling, conversation_length, llm_arguments, load_llm
from nano_llama.cli.generate import check_text, speed
from nano_llama.cli.lines import LineReader
from nano_llama.cli.models import ModelPath, shown_path
from nano_llama.cli.wrapped import WrappedText
from nano_llama.core.errors import NanoLlamaError, UserError
from nano_llama.core.sampling import SamplingParams
from nano_llama.core.units import plural
from nano_llama.formats import reads_images

if TYPE_CHECKING:
    from nano_llama.vol3_engine.llm import LLM

YOU = "bold green"  # the style of the prompt


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
    """Chat with an instruct model in the terminal. Type /help there.

    Without a terminal, each line of stdin is a message. With --json the conversation is printed at the end.

    Parameters
    ----------
    model
        A Hugging Face folder, a .gguf, the folder of a training run, a hub name (org/name), or a short one:
        smollm2-135m, tinyllama ... By default the model that --adapter was trained on.
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
    compute = compute or Compute()
    llm_arguments(compute)  # refuses what contradicts itself before anything is said
    path = find_model(model, adapter, screen)
    screen.say(f"Loading {model or shown_path(path)}{f' with {adapter}' if adapter else ''} ...", style="dim")
    llm = load_llm(path, compute, adapter=adapter)
    if llm.tokenizer is None or llm.tokenizer.chat_template is None:
        image = "--image FILE " if reads_images(path) else ""
        raise UserError(
            f"{model or path} has no chat template: it continues text, it was not trained to answer.",
            hint=f'Use  nano-llama generate --model {model or path} {image}--prompt "..."',
        )
    screen.say("Type a message. /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.\n", style="dim")
    chat = Chat(screen, llm, params, Conversation(system), LineReader(screen.out, shown=not screen.json))
    chat.loop()
    used = {"model": model or str(path), "adapter": adapter}
    screen.result({**used, "messages": chat.conversation.messages(paths=True), "answers": chat.figures})
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
        self.commands = Commands(self)
        self.reader.complete = self.commands.completions

    def loop(self) -> None:
        """Until /quit, the end of input, or Ctrl-C twice in a row at the prompt."""
        interrupted = False
        while True:
            try:
                text = self.reader.message("you> ", "...> ", style=YOU)
                interrupted = False
                if text.strip() in LEAVE:
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
        before, attached = list(self.conversation.turns), self.conversation.attached
        try:
            if text.startswith("/"):
                self.commands.run(text)
                return
            check_text(text, "The message")
            self.conversation.ask(text.strip())
            self.answer()
        except (NanoLlamaError, KeyboardInterrupt) as error:
            self.conversation.turns, self.conversation.attached = before, attached
            if isinstance(error, KeyboardInterrupt):
                raise
            self.screen.err.print(f"error: {printable(error)}", style="red")

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
        limit = "max_tokens" if figures["new_tokens"] == params.max_tokens else "the end of the context"
        ending = {"interrupted": ", stopped", "length": f", stopped at {limit}"}
        self.screen.say(
            f"[{plural(figures['new_tokens'], 'token')}{f', {rate:,.1f} tokens/s' if rate else ''}"
            f"{ending.get(figures['finish_reason'], '')}]" + "\n" * self.reader.interactive,
            style="dim",
        )

    def length(self) -> int:
        """Tokens of the conversation so far."""
        return conversation_length(self.llm, self.conversation.messages()) if self.conversation.turns else 0

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
        shown = WrappedText(self.screen.err if self.screen.json else self.screen.out)
        if self.reader.interactive:
            shown.write("\n")
        text, count, reason = "", 0, "interrupted"
        began = first = time.perf_counter()
        try:
            for piece in self.llm.stream(self.conversation.messages(), params):
                count += 1
                if count == 1:
                    first = time.perf_counter()
                text += piece.text
                shown.write(piece.text)
                if piece.output is not None:
                    reason = piece.output.outputs[0].finish_reason or reason
        except KeyboardInterrupt:
            pass
        ended = time.perf_counter()
        shown.end()
        figures = {
            "new_tokens": count,
            "finish_reason": reason,
            "seconds": ended - began,
            "tokens_per_second": speed(count, ended - first),
        }
        return text, figures
