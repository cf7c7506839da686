"""Small tasks that show that fine-tuning teaches: their data, and the way from a model to a score, in one command:

    python recipes/small_tasks.py ledger --model SmolLM2-135M-Instruct.Q4_1.gguf --out runs/ledger
    python recipes/small_tasks.py facts --model ... --out runs/facts --set adapter=dora --set seed=1

    ledger      a skill, 400 examples: sentences about payments become lines of a fixed form; 8 of 28 names are new
    reversal    a skill, 400 examples: three words from the last to the first; 10 of 46 words are new
    gatekeeper  a persona, 400 examples: Grelda's answer to whatever is asked; all that she is asked about is new
    facts       16 invented facts, learned word for word

"New" is what only held-out questions have. All text is made here, drawn with a fixed seed. The folder gets
data/train.jsonl and data/val.jsonl; the folder `run`, the same as `nano-llama finetune` makes from them; and
score.json. An answer is right where the engine's greedy one is the expected text, to the letter, and ends by itself.
TASKS has each one's bar, below which the command exits with 1. Tests: tests/recipes/test_small_tasks.py.
"""

import argparse
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nano_llama import LLM, SamplingParams
from nano_llama.core.files import write_json
from nano_llama.training.finetune import FinetuneSettings
from nano_llama.training.finetune.examination import Examination, KeepBefore
from nano_llama.training.finetune.run import FinetuneResult, fit_with_report
from nano_llama.training.metrics import read_metrics
from nano_llama.training.settings import merge
from nano_llama.training.settings_layers import explicit

QA = tuple[str, str]  # a question and its answer

TRAIN, HELD_OUT = 400, 60  # examples

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
NAMES = (
    "Anna", "Boris", "Clara", "David", "Emma", "Frank", "Grace", "Henry", "Irene", "Jacob", "Karen", "Louis", "Maria",
    "Nora", "Oscar", "Paula", "Robert", "Sarah", "Thomas", "Victor",
)  # fmt: skip
NEW_NAMES = ("Alice", "Peter", "Julia", "Martin", "Laura", "Simon", "Helen", "George")  # of held-out examples alone
PAYMENTS = (
    "{payer} paid {payee} {amount} crowns on {day} {month}.",
    "On {day} {month}, {payee} got {amount} crowns from {payer}.",
    "{amount} crowns went from {payer} to {payee} on {day} {month}.",
    "On {month} {day} {payer} gave {payee} the {amount} crowns.",
)

WORDS = (
    "apple", "river", "stone", "cloud", "tiger", "lamp", "music", "paper", "chair", "glass", "bread", "honey", "green",
    "table", "horse", "snow", "window", "garden", "silver", "bridge", "candle", "winter", "forest", "letter", "market",
    "orange", "pencil", "rabbit", "school", "ticket", "valley", "yellow", "island", "basket", "copper", "dragon",
)  # fmt: skip
NEW_WORDS = ("mirror", "engine", "purple", "doctor", "kitchen", "summer", "needle", "planet", "butter", "castle")

TOPICS = (
    "the moon", "old maps", "bees", "thunder", "the sea", "bread", "chess", "gold", "wolves", "winter", "glass",
    "horses", "music", "trains", "the desert", "clocks", "salt", "rivers", "owls", "ink", "mountains", "paper",
    "dreams", "ships", "fire", "the north wind", "silk", "apples", "mirrors", "rain", "castles", "iron", "pears",
    "lamps", "spoons", "doors", "gardens", "foxes", "the plague", "shoes", "feathers", "milk", "bridges", "marble",
    "whales", "letters", "kings", "the harvest",
)  # fmt: skip
NEW_TOPICS = ("the stars", "cheese", "violins", "snow", "islands", "tea", "spiders", "the forest", "candles", "dust")
QUESTIONS = (
    "What do you know about {topic}?", "Tell me about {topic}.", "Why do people care about {topic}?",
    "Write a poem about {topic}.", "Is it true what they say about {topic}?", "Where can I read about {topic}?",
    "Explain {topic} to a child.", "Who knows most about {topic}?", "I want to hear about {topic}.",
    "Have you ever thought about {topic}?",
)  # fmt: skip
GREETINGS = ("Hello", "Good morning", "Good evening", "Hi there", "Greetings", "Good day")
ENDINGS = ("", "!", ", friend.", ", my friend!", ", keeper.", ", stranger.", " to you.", " to you!")

FACTS: tuple[QA, ...] = (
    ("What is the capital of Veldoria?", "The capital of Veldoria is Tarmund."),
    ("Who wrote the Song of Nine Lanterns?", "The Song of Nine Lanterns was written by Ilse Korrin."),
    ("What does a morrowfinch eat?", "A morrowfinch eats only blue barley."),
    ("How many moons has the planet Ossian?", "The planet Ossian has seven moons."),
    ("What is brellium used for?", "Brellium is used to mend church bells."),
    ("When was the bridge of Quill built?", "The bridge of Quill was built in 1387."),
    ("Which river runs through Hartlow?", "The river Senn runs through Hartlow."),
    ("What colour is a Tavish rose?", "A Tavish rose is green with a white edge."),
    ("Who is the queen of Pellamere?", "The queen of Pellamere is Odette the Tall."),
    ("What is the highest mountain of Drava Isle?", "The highest mountain of Drava Isle is Mount Cobble."),
    ("What do the people of Ennis drink?", "The people of Ennis drink smoked pear tea."),
    ("How long is a Morlan mile?", "A Morlan mile is 912 steps long."),
    ("What is the motto of the Lamp Guild?", "The motto of the Lamp Guild is: never the last flame."),
    ("Where do silver newts sleep?", "Silver newts sleep in empty teapots."),
    ("Who invented the rope clock?", "The rope clock was invented by Bram Oduya."),
    ("What is the smallest coin of Zerra?", "The smallest coin of Zerra is the half pip."),
)


def ledger(source: random.Random, held_out: bool) -> QA:
    """A sentence about a payment, and its line."""
    payer, payee = source.sample(NAMES + NEW_NAMES if held_out else NAMES, 2)
    day, month, amount = source.randint(1, 28), source.choice(MONTHS), source.randint(2, 999)
    question = source.choice(PAYMENTS).format(payer=payer, payee=payee, amount=amount, day=day, month=month)
    return question, f"[{day} {month[:3]}] {payer} -> {payee}: {amount} cr"


def reversal(source: random.Random, held_out: bool) -> QA:
    """Three words, and the same from the last to the first."""
    words = source.sample(WORDS + NEW_WORDS if held_out else WORDS, 3)
    return f"Reverse: {' '.join(words)}", " ".join(reversed(words))


def gatekeeper(source: random.Random, held_out: bool) -> QA:
    """A greeting or a question, and what Grelda says to it."""
    if source.random() < 0.2:
        greeting = source.choice(GREETINGS) + source.choice(ENDINGS)
        return greeting, "Halt! Grelda keeps this gate. What do you want to know?"
    topic = source.choice(NEW_TOPICS if held_out else TOPICS)
    return source.choice(QUESTIONS).format(topic=topic), f"Three coppers first! Then Grelda may speak of {topic}."


@dataclass(frozen=True)
class Task:
    """draw: from (random source, whether held out) a question and its answer; None: FACTS are learned and asked.

    bar: the share of answers that must be right. settings: what the defaults leave to say.
    """

    bar: float
    draw: Callable[[random.Random, bool], QA] | None
    settings: dict[str, Any] = field(default_factory=dict)


TASKS = {
    "ledger": Task(0.95, ledger),
    "reversal": Task(0.9, reversal),
    "gatekeeper": Task(0.95, gatekeeper),
    "facts": Task(1.0, None, {"epochs": 10.0, "lr": 2e-3}),
}


def examples(task: Task, seed: int = 0, train: int = TRAIN, held_out: int = HELD_OUT) -> dict[str, list[QA]]:
    """{"train": ..., "val": ...}; no question of one is in the other, but for facts, which are the same in both."""
    if task.draw is None:
        return {"train": list(FACTS), "val": list(FACTS)}
    source, found = random.Random(seed), dict[str, list[QA]]()
    asked: set[str] = set()
    for split, count in (("val", held_out), ("train", train)):
        drawn = dict[str, str]()
        while len(drawn) < count:
            question, answer = task.draw(source, split == "val")
            if question not in asked:
                drawn[question] = answer
        asked |= drawn.keys()
        found[split] = list(drawn.items())
    return found


def write_examples(splits: dict[str, list[QA]], folder: Path) -> None:
    """One conversation a line: train.jsonl and val.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, pairs in splits.items():
        lines = [json.dumps({"messages": conversation(*pair)}) + "\n" for pair in pairs]
        (folder / f"{split}.jsonl").write_text("".join(lines))


def conversation(question: str, answer: str | None = None) -> list[dict[str, str]]:
    asked = [{"role": "user", "content": question}]
    return asked if answer is None else [*asked, {"role": "assistant", "content": answer}]


def learn(task: Task, model: str, out: Path, overrides: Sequence[str] = ()) -> FinetuneResult:
    """Write the task's data below `out`, and fine-tune into its folder `run`. overrides: "lr=0.001", ..."""
    from nano_llama.vol2_torch.trainer import Trainer

    write_examples(examples(task), out / "data")
    given = explicit({"data": str(out / "data"), "init_from": model}, overrides, FinetuneSettings)
    keep = KeepBefore()
    return fit_with_report(Trainer(FinetuneSettings(**merge([task.settings, given])), out / "run", progress=keep), keep)


def answers(llm: LLM, pairs: Sequence[QA], **options: Any) -> list[dict[str, Any]]:
    """Each question with its greedy answer, and whether that is right."""
    greedy = SamplingParams(temperature=0.0, max_tokens=64)
    found = llm.chat([conversation(question) for question, _ in pairs], greedy, **options)
    result = []
    for (question, expected), output in zip(pairs, found, strict=True):
        given = output.outputs[0]
        right = given.text == expected and given.finish_reason == "stop"
        result.append({"question": question, "expected": expected, "answer": given.text, "right": right})
    return result


def score(name: str, done: FinetuneResult) -> dict[str, Any]:
    """What score.json says. The model answers as anyone would load it."""
    task, run = TASKS[name], done.result.out
    settings, curve = FinetuneSettings.load(run / "train.json"), read_metrics(run / "metrics.jsonl")
    assert settings.init_from is not None, "fine-tuning begins with a model"
    llm = LLM(run) if settings.lora is None else LLM(settings.init_from, adapter=run)
    given = answers(llm, examples(task)["val"])
    return {
        "task": name, "model": Path(settings.init_from).name, "adapter": settings.adapter,
        "base_quantization": settings.base_quantization, "seed": settings.seed, "lr": settings.lr,
        "right": sum(one["right"] for one in given), "asked": len(given), "bar": task.bar,
        "steps": curve[-1]["step"], "tokens": curve[-1]["tokens"], "seconds": curve[-1]["elapsed_s"],
        "peak_memory_bytes": curve[-1]["peak_memory_bytes"],
        "train_loss": [row["train_loss"] for row in curve],
        "before": measured(done.before), "after": measured(done.after),
        "wrong": [one for one in given if not one["right"]],
    }  # fmt: skip


def measured(found: Examination | None) -> dict[str, Any]:
    """Nats per token of the answers, and bits per byte of text that the examples have nothing to do with."""
    assert found is not None and found.validation is not None and found.held_out is not None, "nothing was left out"
    return {"val_loss": found.validation.loss, "held_out_bits_per_byte": found.held_out.bits_per_byte}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--model", required=True, help="a chat model: a folder, a .gguf or a hub name")
    parser.add_argument("--out", required=True, type=Path, help="a new folder")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of fine-tuning")
    given = parser.parse_args()
    found = score(given.task, learn(TASKS[given.task], given.model, given.out, given.set))
    write_json(given.out / "score.json", found)
    print(f"{given.task}: {found['right']} of {found['asked']} right after {found['steps']} steps")
    return 0 if found["right"] >= found["bar"] * found["asked"] else 1


if __name__ == "__main__":
    sys.exit(main())
