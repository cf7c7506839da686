"""Models that come with the package: a name without a slash, and the Hugging Face folder it stands for.

    nano_gpt     trained by this code on old books
    nano_eyes    nano_gpt, trained further by this code to answer questions about pictures that it renders

Each has its card beside its weights.

Not here: names on the hub (hub.py), how the model was made (recipes/). Tests: tests/formats/test_shipped.py.
"""

from pathlib import Path

DEFAULT_MODEL = "nano_gpt"
_MODELS = Path(__file__).parents[1] / "models"


def shipped_names() -> list[str]:
    """The names of the models in this installation."""
    return sorted(config.parent.name for config in _MODELS.glob("*/config.json"))


def shipped_model(name: str) -> Path | None:
    """The folder of a model that comes with the package, or None if there is none of that name."""
    return _MODELS / name if name in shipped_names() else None
