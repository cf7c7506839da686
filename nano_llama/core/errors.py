"""The errors a user may see: each names the offending value and the next step.

Not here: checks of our own invariants (`assert` with a message guards those), and printing (the command line turns an
error into one or two lines and its exit code). Tests: tests/core/test_files.py.

    NanoLlamaError              every error of ours
      UserError         exit 2  the user can fix it: an argument, a path, a value
        ContextLengthError      prompt and new tokens do not fit into the context
        ConfigError             a model's shape is impossible, unknown or not a LLaMA
        FormatError             a file is damaged, hostile, or of a kind we do not read
      EnvironmentFault  exit 1  the machine lacks something: a package, memory, disk, a network
      SaidByAnother           another of several processes says why all of them end
      EngineOverloaded  exit 1  the engine's queue is full; later there is room
"""

import json
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

DISTRIBUTION = "nano-llama-engine"


class NanoLlamaError(Exception):
    """An error with a message that names the offending value, and a hint that names the next step."""

    exit_code = 1

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UserError(NanoLlamaError):
    """An argument, path or value that the user can fix."""

    exit_code = 2


class ConfigError(UserError):
    """A model description that is impossible, unknown, or not a LLaMA."""


class FormatError(UserError):
    """A file that is damaged, hostile, or of a kind we do not read."""


class ContextLengthError(UserError):
    """A prompt of prompt_tokens, with max_tokens to follow (None: at least one), is longer than context tokens."""

    def __init__(self, message: str, hint: str = "", *, prompt_tokens: int, max_tokens: int | None, context: int):
        super().__init__(message, hint)
        self.prompt_tokens = prompt_tokens
        self.max_tokens = max_tokens
        self.context = context


class SaidByAnother(NanoLlamaError):
    """Another of several processes that work together says why all end: this one ends without a word.

    cause: its own error. exit_code: the other one's.
    """

    def __init__(self, cause: BaseException, exit_code: int = NanoLlamaError.exit_code):
        super().__init__(f"Another process says why: {cause}")
        self.exit_code = exit_code


class EngineOverloaded(NanoLlamaError):
    """The engine's queue is full. retry_after: seconds until there is likely to be room."""

    def __init__(self, message: str, hint: str = "", *, retry_after: float):
        super().__init__(message, hint)
        self.retry_after = retry_after


class EnvironmentFault(NanoLlamaError):
    """Something the machine lacks: a package, memory, disk space, a network."""

    exit_code = 1


def import_extra(module: str, extra: str, feature: str) -> Any:
    """Import an optional dependency where it is used, or say which extra brings it.

    Raises EnvironmentFault when `module` is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise  # the package is installed but broken: its own error says more
        raise EnvironmentFault(
            f"{feature} needs the package {error.name!r}, which is not installed.",
            hint=f"Install it with  {install_command(extra)}",
        ) from None


def install_command(extra: str) -> str:
    """The command that installs an extra from where this package came from: a clone, a folder or an index."""
    root = Path(__file__).resolve().parents[2]
    if (root / "pyproject.toml").is_file():  # the package lies in a clone
        return f'pip install -e "{"." if root == Path.cwd() else root}[{extra}]"'
    return f'pip install "{DISTRIBUTION}[{extra}]{_origin()}"'


def _origin() -> str:
    """ " @ file:///..." for a package that was installed from a folder or an archive; nothing for one of an index."""
    try:
        written = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
        origin = json.loads(written) if written else {}
    except (metadata.PackageNotFoundError, OSError, ValueError):
        return ""
    prefix = f"{origin['vcs_info']['vcs']}+" if "vcs_info" in origin else ""
    return f" @ {prefix}{origin['url']}" if "url" in origin else ""
