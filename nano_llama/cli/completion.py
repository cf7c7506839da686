"""`nano-llama completion`: a script that lets the shell complete commands, flags and their values with Tab.

Cyclopts writes the script from the same annotations that dispatch.py parses. Tests: tests/cli/test_completion.py.
"""

import re
from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from nano_llama.cli.common import Output, Screen
from nano_llama.cli.dispatch import make_app

Shell = Literal["bash", "zsh", "fish"]
Commands = Mapping[str, Any]  # of the Command that nano_llama/cli/__init__.py defines

CALLED_OR_SOURCED = """
if [[ $funcstack[1] == _nano-llama ]]; then
  _cyclopts_nano-llama "$@"
else
  compdef _cyclopts_nano-llama nano-llama
fi
"""

EXAMPLE = "bash"  # of dispatch.py


def run(
    shell: Shell,
    /,
    *,
    commands: Annotated[Commands, Parameter(parse=False)],
    output: Output | None = None,
) -> int:
    """Print the script that makes Tab complete this command in your shell.

    bash:  echo 'eval "$(nano-llama completion bash)"' >> ~/.bashrc

    zsh:  echo 'source <(nano-llama completion zsh)' >> ~/.zshrc    (after compinit)

    fish:  nano-llama completion fish > ~/.config/fish/completions/nano-llama.fish

    Parameters
    ----------
    shell
        The shell to write it for.
    commands
        The table of nano_llama/cli/__init__.py.
    """
    screen = Screen(output)
    script = finished(whole_app(commands).generate_completion(shell=shell), shell)
    screen.result({"shell": shell, "script": script})
    if not screen.json:
        print(script, end="")  # as it is: rich would wrap it
    return 0


def finished(script: str, shell: Shell) -> str:
    """What cyclopts leaves out. Files, where nothing else is known: a model may be one, and its name is any text; fish
    offers them by itself. In zsh the call of the function, or its registration where the script is sourced.
    """
    if shell == "bash":
        return script.replace("complete -F", "complete -o default -F")
    if shell == "zsh":  # '*--model[help]:model'  and  '1:help'  -> with the action :_files
        without_action = r"^( +'(?:\*--.*\]:[\w-]+|\d:[^:\n]*))(?=' \\$)"
        return re.sub(without_action, r"\1:_files", script, flags=re.MULTILINE) + CALLED_OR_SOURCED
    return script


def whole_app(commands: Commands) -> App:
    """All commands as one application, which completion needs: running one imports its module alone."""
    whole = App(name="nano-llama", version_flags=[])
    for name, command in commands.items():
        app = make_app(name, import_module(command.module).run)
        app.help = command.help
        whole.command(app, name=name)
    return whole
