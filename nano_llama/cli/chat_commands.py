"""What may be typed in a chat instead of a message: /set, /retry, /system and the others, with the names people try.

Not here: answering (chat.py), the rules of the history (conversation.py). Tests: tests/cli/test_chat.py.
"""

from collections.abc import Callable
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nano_llama.cli.common import facts, printable
from nano_llama.cli.conversation import Picture, Turn
from nano_llama.cli.generate import check_text
from nano_llama.core.errors import FormatError, UserError
from nano_llama.core.files import read_json, write_json
from nano_llama.core.sampling import SamplingParams
from nano_llama.core.units import plural

if TYPE_CHECKING:
    from nano_llama.cli.chat import Chat

SETTABLE = [
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty",
    "max_tokens", "seed", "stop",
]  # fmt: skip
assert {*SETTABLE} <= {field.name for field in fields(SamplingParams)}

LEAVE = ("/quit", "/exit", "/bye", "/q")
MORE_HELP = """\
A line that ends with \\ continues on the next; \"\"\" begins a block of lines and \"\"\" ends it.
Ctrl-C stops an answer. Tab completes commands. To send a line that begins with / put a space before it."""


class Command(NamedTuple):
    """names: the first is the one that /help shows. argument: what may follow it. run: called with what followed."""

    names: tuple[str, ...]
    argument: str
    help: str
    run: Callable[[str], None]


class Commands:
    """The commands of one chat."""

    def __init__(self, chat: "Chat"):
        self.chat = chat
        self.listed = [
            Command(("/edit",), "[TEXT]", "change your last message (without TEXT: edit it) and get a new answer",
                    self.edit),
            Command(("/retry", "/regenerate"), "[N]", "get another answer, or N of them (also /regenerate)",
                    self.retry),
            Command(("/undo",), "", "take your last message and its answer back", self.undo),
            Command(("/set",), "[NAME X]", "set temperature, top_p, max_tokens, seed ... (without NAME: show them)",
                    self.set),
            Command(("/image",), "[FILE]", "show a picture with your next message (no FILE: list them); - for none",
                    self.attach),
            Command(("/system",), "[TEXT]", "set the system prompt (without TEXT: show it); - removes it",
                    self.set_system_prompt),
            Command(("/new", "/clear", "/reset"), "", "start a new conversation (also /clear)", self.start_over),
            Command(("/stats",), "", "tokens, speed, and how full the context is", self.show_statistics),
            Command(("/save",), "FILE", "save the conversation as JSON", self.save),
            Command(("/load",), "FILE", "continue a conversation that was saved", self.load),
            Command(("/help", "/?", "/h"), "", "show this list", self.show_help),
        ]  # fmt: skip
        self.named = {name: command for command in self.listed for name in command.names}

    def run(self, line: str) -> None:
        """Raises UserError for an unknown command, and what the command raises."""
        word, _, rest = line.strip().partition(" ")
        if word not in self.named:
            close = get_close_matches(word, [*self.named, *LEAVE], n=1)
            meant = f"Did you mean {close[0]}? " if close else ""
            hint = f"{meant}/help lists the commands. To send this as a message, put a space before it."
            raise UserError(f"Unknown command {word}.", hint=hint)
        self.named[word].run(rest.strip())

    def completions(self, line: str, word: str) -> list[str]:
        """What Tab offers for the last word of a line: commands, settings, files."""
        if line == word and word.startswith("/"):
            return sorted(name for name in [*self.named, *LEAVE] if name.startswith(word))
        if line.startswith("/set ") and line.count(" ") == 1:
            return [name for name in SETTABLE if name.startswith(word)]
        if line.startswith(("/save ", "/load ", "/image ")):
            return paths_that_begin(word)
        return []

    def show_help(self, _: str) -> None:
        rows = {f"{command.names[0]} {command.argument}": command.help for command in self.listed}
        self.chat.screen.err.print(facts({**rows, "/quit": "leave (also /bye, Ctrl-D, or Ctrl-C twice)"}), MORE_HELP)

    # -- of the last message ----------------------------------------------------------------------------------------

    def edit(self, text: str) -> None:
        chat = self.chat
        old = chat.conversation.last_question
        if not text:
            if not chat.reader.can_edit:
                chat.screen.say(f"Your last message was:\n{old}")
            text = chat.reader.message("edit> ", "...> ", before=old).strip()
        if not text:
            raise UserError("The message is empty. Nothing was changed.")
        check_text(text, "The message")
        chat.conversation.reopen(text)
        chat.answer()

    def retry(self, times: str) -> None:
        if times and not (times.isdigit() and int(times) > 0):
            raise UserError(f"/retry {times}: how often?", hint="A number, such as  /retry 3  or nothing for once.")
        count = int(times or 1)
        if self.chat.params.is_greedy:
            self.chat.screen.say("(Temperature 0: the answer will be the same. Try  /set temperature 0.8)", "yellow")
            count = 1
        for _ in range(count):
            self.chat.conversation.reopen()
            self.chat.attempt += 1
            self.chat.answer()

    def undo(self, _: str) -> None:
        question = self.chat.conversation.last_question
        self.chat.conversation.turns.pop()
        self.chat.screen.say(f"Taken back: {question}")

    def attach(self, name: str) -> None:
        conversation = self.chat.conversation
        if name == "-":
            conversation.attached = []
        elif name:
            conversation.attached = [*conversation.attached, self._picture(name)]
        names = ", ".join(str(picture.path) for picture in conversation.attached)
        self.chat.screen.say(f"With your next message: {names}" if names else "No picture goes with your next message.")

    def _picture(self, name: str) -> Picture:
        images, path = self.chat.llm.images, Path(name).expanduser()
        if images is None:
            raise UserError(
                f"{path}: this model reads text only.",
                hint="Start  nano-llama chat  with a folder of Idefics3 or SmolVLM to show pictures.",
            )
        return Picture(path, images.read(path))

    # -- how answers are made ---------------------------------------------------------------------------------------

    def set(self, text: str) -> None:
        text = text.removeprefix("parameter ").replace("=", " ", 1)
        name, _, value = text.partition(" ")
        if name == "system":
            self.set_system_prompt(value.strip())
            return
        name = name.replace("-", "_")
        if not name:
            self.chat.screen.err.print(facts({key: self._value(key) for key in SETTABLE}))
            return
        if name not in SETTABLE:
            close = get_close_matches(name, SETTABLE, n=1)
            meant = f"Did you mean {close[0]}? " if close else ""
            raise UserError(f"/set {name}: no such setting.", hint=f"{meant}There are {', '.join(SETTABLE)}.")
        if value := value.strip():
            self.chat.params = self.chat.params.replace(**{name: parsed(value)})
        self.chat.screen.say(f"{name}: {self._value(name)}")

    def _value(self, name: str) -> str:
        value = getattr(self.chat.params, name)
        return "none" if value is None else " ".join(value) if isinstance(value, tuple) else f"{value:g}"

    def set_system_prompt(self, text: str) -> None:
        conversation = self.chat.conversation
        if text:
            check_text(text, "The system prompt")
            conversation.system = None if text == "-" else text
        shown = conversation.system
        self.chat.screen.say(f"System prompt: {shown}" if shown else "There is no system prompt.")

    def show_statistics(self, _: str) -> None:
        chat = self.chat
        tokens = sum(answer["new_tokens"] for answer in chat.figures)
        seconds = sum(answer["seconds"] for answer in chat.figures)
        used, context = chat.length(), chat.llm.config.max_position_embeddings
        rows: dict[str, Any] = {
            "model": chat.llm.config.shape_text,
            "answers": f"{len(chat.figures):,}, {plural(tokens, 'token')} in {seconds:.1f} s",
            "context": f"{used:,} of {context:,} tokens ({used / context:.0%})",
        }
        if chat.figures and (rate := chat.figures[-1]["tokens_per_second"]):
            rows["last answer"] = f"{rate:,.1f} tokens/s"
        chat.screen.err.print(facts(rows))

    # -- the conversation -------------------------------------------------------------------------------------------

    def start_over(self, _: str) -> None:
        self.chat.conversation.turns.clear()
        self.chat.conversation.attached = []
        self.chat.screen.say("Started a new conversation.")

    def save(self, name: str) -> None:
        if not name:
            raise UserError("/save needs a file name.", hint="For example:  /save chat.json")
        path = Path(name).expanduser()
        if path.exists():
            raise UserError(f"{path} already exists.", hint="Choose another name.")
        write_json(path, {"messages": self.chat.conversation.messages(paths=True)})
        self.chat.screen.say(f"Saved as {path}.")

    def load(self, name: str) -> None:
        if not name:
            raise UserError("/load needs a file name.", hint="For example:  /load chat.json")
        system, turns = read_conversation(Path(name).expanduser(), self._picture)
        self.chat.conversation.system = system
        self.chat.conversation.turns[:] = turns
        self.chat.screen.say(f"Loaded {plural(len(turns), 'turn')}. The last: {printable(turns[-1].question)}")


def paths_that_begin(word: str) -> list[str]:
    """Files and folders that begin with what was typed, folders with a slash at their end."""
    folder, _, name = word.rpartition("/")
    place = Path(f"{folder}/" if folder or word.startswith("/") else ".").expanduser()
    found = sorted(place.glob("*")) if place.is_dir() else []
    before = word.removesuffix(name)
    return [before + path.name + "/" * path.is_dir() for path in found if path.name.startswith(name)]


def parsed(value: str) -> Any:
    """A setting as it is typed: a number, "none", or a text."""
    if value.lower() in ("none", "off", "-"):
        return None
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def _readable(message: tuple[Any, Any]) -> bool:
    """Whether its content is a text, or parts as Turn.content makes them."""
    content = message[1]
    if isinstance(content, str):
        return True
    parts = content if isinstance(content, list) and all(isinstance(part, dict) for part in content) else [{}]
    named = all(isinstance(part.get("image"), str) for part in parts[:-1])
    return named and bool(parts) and isinstance(parts[-1].get("text"), str)


def read_conversation(path: Path, picture: Callable[[str], Picture]) -> tuple[str | None, list[Turn]]:
    """The system prompt and the turns that /save has written, its pictures read again by `picture`. Raises FormatError
    for anything else.
    """
    value = read_json(path)
    messages = value.get("messages") if isinstance(value, dict) else None
    try:
        found = [(message["role"], message["content"]) for message in messages or []]
    except (TypeError, KeyError):
        found = []
    system = found.pop(0)[1] if found and found[0][0] == "system" else None
    questions, answers = found[::2], found[1::2]
    regular = (
        all(map(_readable, questions))
        and all(role == "user" for role, _ in questions)
        and all(role == "assistant" for role, _ in answers)
    )
    if not questions or len(questions) != len(answers) or not regular:
        raise FormatError(
            f"{path} is not a conversation of questions and answers.", hint="Give a file that /save wrote."
        )
    turns = []
    for (_, asked), (_, answered) in zip(questions, answers, strict=True):
        *images, text = asked if isinstance(asked, list) else [{"text": asked}]
        turns.append(Turn(text["text"], answered, [picture(part["image"]) for part in images]))
    return system, turns
