"""Which files `--model` means: a path, a hub name, or the folder of a training run that may still be running.

Tests: tests/cli/test_models.py.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from nano_llama.cli.common import Screen
from nano_llama.core.errors import FormatError, UserError
from nano_llama.formats.short_names import SHORT_NAMES, short_name

if TYPE_CHECKING:
    from nano_llama.tokenizer import Tokenizer

ModelPath = Annotated[
    str,
    Parameter(
        name="--model",
        help="A Hugging Face folder, a .gguf, the folder of a training run, a hub name (org/name), nano_gpt or another "
        f"short name: {', '.join(SHORT_NAMES)}.",
    ),
]


def locate_model(name: str, screen: Screen) -> Path:
    """The folder or file to read. A hub name is downloaded; a run without final weights gives its newest checkpoint.

    Raises UserError where there is no such model, EnvironmentFault where the hub cannot be reached.
    """
    from nano_llama.formats import resolve_model

    if not name:
        raise UserError("--model is empty.", hint="Give a folder, a .gguf or a hub name (org/name).")
    short = short_name(name)
    if short is not None and not Path(name).exists():
        screen.say(f"{name} is {short.where}.", style="dim")
    path = resolve_model(name, progress=not screen.quiet)
    check_readable(path)
    if not (path / "train.json").is_file() or any(path.glob("*.safetensors")):
        return path
    from nano_llama.training.checkpoint import list_checkpoints

    checkpoints = list_checkpoints(path / "checkpoints")
    if not checkpoints:
        raise UserError(
            f"The run in {path} has saved no weights yet.",
            hint=f"Wait for its first checkpoint, or resume it:  nano-llama train --out {path} --resume",
        )
    screen.say(
        f"The run in {path} has not finished: using its newest checkpoint, {checkpoints[-1].name}.", style="yellow"
    )
    return checkpoints[-1]


def shown_path(path: Path) -> str:
    """As short as it can be: from the current folder, or the home folder, where it is below one of them."""
    for root, sign in ((Path.cwd(), ""), (Path.home(), "~/")):
        if path.is_absolute() and path.is_relative_to(root):
            return f"{sign}{path.relative_to(root)}"
    return str(path)


def check_readable(path: Path) -> None:
    """Raise UserError for what is neither a file nor a folder: reading a pipe or a device would block forever."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{path} is neither a file nor a folder.", hint="Give the path of a file or a folder.")


def find_tokenizer(path: Path, screen: Screen) -> "Tokenizer | None":
    """The tokenizer beside or inside a model; where there is none, a remark and None. A damaged one is an error."""
    from nano_llama.formats import detect
    from nano_llama.tokenizer import Tokenizer

    try:
        holds_weights_only = path.is_file() and detect(path) in ("safetensors", "pth")
        return Tokenizer.from_pretrained(path.parent if holds_weights_only else path)
    except FormatError:
        raise
    except UserError as error:
        screen.say(f"Without a tokenizer: {error.message}", style="yellow")
        return None
