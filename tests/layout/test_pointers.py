"""Every path and dotted name in a comment, docstring, message or page exists."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from helpers.prose import ROOT, SOURCES, texts

PAGES = [
    ROOT / name
    for name in ("README.md", "CONTRIBUTING.md", "docs/serving.md", "docs/finetuning.md", "docs/pictures.md")
] + sorted((ROOT / "docs" / "start").glob("*.md"))

URL = re.compile(r"\w+://\S+")
# A file of ours by its ending, or a folder by the slash behind it.
PATH = re.compile(
    r"(?<![\w./*{}~<\\-])(?:\.\./)*"
    r"(?:[\w-]+(?:/[\w-]+)*\.(?:py|md)\b(?![\w*{}(])|[a-z_]\w*(?:/[a-z_]\w*)*/(?![\w*{}<\\/]|\.\w|\.\.))"
)
DOTTED = re.compile(r"\bnano_llama(?:\.\w+)+")

# In every folder of a run; of an exercise; of a room of the museum, its author's and its visitor's.
GENERAL = {"samples.md", "report.md", "stub.py", "solution.py", "check.py", "detector.py", "page.md", "test_room.py"}
# Named, and not here: what users have, what commands make, files of other projects.
ELSEWHERE = {
    "README.md": ["runs/"],
    "docs/finetuning.md": ["runs/pirate/report.md"],
    "docs/start/researcher.md": ["my_file.py"],
    "bench/volume2_shakespeare.py": ["data/shakespeare_char/prepare.py"],  # nanoGPT's
    "nano_llama/core/sampling/sampler.py": ["vllm/v1/sample/sampler.py"],
    "nano_llama/data/split_names.py": ["dev.md", "test.py", "train.py"],  # of users' folders
    "nano_llama/formats/gguf_rope.py": ["nano_llama.rope_scaling"],  # a key of GGUF's metadata
    "nano_llama/formats/gguf_reader.py": ["docs/gguf.md"],  # ggml's
    "nano_llama/moved.py": ["nano_llama.core.data.readers"],
    "nano_llama/tokenizer/token_bytes.py": ["encoder.py"],  # GPT-2's
    "nano_llama/training/optimizers.py": ["my_file.py"],
    "nano_llama/training/run_folder.py": ["bad_batches/", "tensorboard/"],
    "nano_llama/training/settings.py": ["bad_batches/", "my_file.py"],
}


def missing_paths(source: Path, text: str) -> Iterator[str]:
    """A path counts from the source's folder or one above it, from the package, from the room that a test is about, and
    after another path from the folder of that one: "tests/data/test_shards.py, test_lock.py".
    """
    inside = [folder for folder in source.parents if folder.is_relative_to(ROOT)]
    places = [*inside, *room_tested(source), ROOT / "nano_llama"]
    previous = ROOT
    for found in PATH.finditer(URL.sub("", text)):
        name = found[0]
        there = next((place / name for place in (*places, previous) if (place / name).exists()), None)
        if there is None:
            yield name
        elif there.is_file():
            previous = there.parent


def room_tested(source: Path) -> list[Path]:
    """tests/vol3/cpu/test_isa.py is about nano_llama/vol3_engine/cpu."""
    if ROOT / "tests" not in source.parents:
        return []
    parts = source.parent.relative_to(ROOT / "tests").parts
    volumes = {"vol1": "vol1_numpy", "vol2": "vol2_torch", "vol3": "vol3_engine"}
    return [ROOT.joinpath("nano_llama", *(volumes.get(part, part) for part in parts))]


@cache
def defined(path: Path) -> dict[str, ast.AST]:
    return names_in(ast.parse(path.read_text()).body)


def names_in(body: list[ast.stmt]) -> dict[str, ast.AST]:
    """name -> node of what a module or class defines or imports at its top."""
    found: dict[str, ast.AST] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id: node for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name: node for alias in node.names}
        elif isinstance(node, ast.If | ast.Try):
            found |= names_in([*node.body, *node.orelse])
    return found


def resolves(dotted: str) -> bool:
    """Whether a dotted name is a module, or something that a module defines, or something in a class of it."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:cut])
        module = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if not module.is_file():
            continue
        names = defined(module)
        for part in parts[cut:]:
            if part not in names and part not in ("__version__",):
                return False
            node = names.get(part)
            names = names_in(node.body) if isinstance(node, ast.ClassDef) else {}
        return True
    return place.is_dir()


def offenders() -> list[str]:
    found = []
    for source in [*SOURCES, *PAGES]:
        place = str(source.relative_to(ROOT))
        for text in texts(source):
            dotted = (name for name in DOTTED.findall(text) if not resolves(name))
            wrong = {*missing_paths(source, text), *dotted} - {*GENERAL, *ELSEWHERE.get(place, ())}
            found += [f"{place}: {name}" for name in sorted(wrong)]
    return found


def test_every_path_and_dotted_name_exists():
    assert not offenders()


def test_what_is_missing_is_found():
    source = ROOT / "nano_llama" / "core" / "config.py"
    text = "See names.py, core/rope.py, formats/, tests/core/test_rope.py, test_config.py; not rule.py, tests/cores/."
    assert list(missing_paths(source, text)) == ["rule.py", "tests/cores/"]
    assert resolves("nano_llama.core.config.LlamaConfig.from_pretrained")
    assert not resolves("nano_llama.core.config.LlamaConfig.from_nowhere")
    assert not resolves("nano_llama.vol1_numpy.generate.generate_naive")
