"""ShapesVQA: picture number i of a split, painted when it is asked for.

Train and test split by what is combined, not by draw: a training picture never shows a combination that is held out
(shape_tasks.py and its neighbours say which). The test split also has new draws of what training has seen, as the
group "seen", to compare with. Tests: tests/data/vqa/test_source.py.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nano_llama.core.errors import UserError
from nano_llama.data.vqa.canvas import SIZE, Canvas
from nano_llama.data.vqa.charts import CHART_TASK
from nano_llama.data.vqa.digits import digit_task
from nano_llama.data.vqa.questions import QUESTIONS, Question, Task
from nano_llama.data.vqa.shape_tasks import SHAPE_TASKS
from nano_llama.data.vqa.words import word_task

PictureSplit = Literal["train", "test"]
TASKS = ("shape", "relation", "count", "digit", "word", "chart")
RULES_VERSION = 3  # part of the fingerprint: raise it when pictures, questions or splits change
MAX_DRAWS = 10_000  # a group that is rarer than this is an error of ours


@dataclass(frozen=True)
class Picture:
    image: np.ndarray  # (64,64,3) bytes, RGB
    task: str  # one of TASKS
    group: str  # "seen", or which held-out combinations it belongs to
    questions: tuple[Question, ...]


class ShapesVQA:
    """Pictures by (seed, split, number): the same ones in any order, on any number of workers."""

    name = "shapes-vqa"
    image_size = SIZE

    def __init__(self, tasks: Sequence[str] = TASKS, seed: int = 0):
        """tasks: which, drawn with equal probability; one that is named twice, twice as often.

        "digit" and "word" need the extra `vision`.

        Raises UserError for an unknown task, EnvironmentFault where a package is missing.
        """
        unknown = [task for task in tasks if task not in TASKS]
        if unknown or not tasks:
            raise UserError(
                f"shapes-vqa: tasks = {tuple(tasks)!r:.200}: {f'unknown: {unknown[0]!r:.80}' if unknown else 'none'}.",
                hint=f"Choose from {', '.join(TASKS)}.",
            )
        self.tasks, self.seed = tuple(tasks), seed
        opened = {task: _open_task(task) for task in dict.fromkeys(self.tasks)}
        self._tasks = [opened[task] for task in self.tasks]

    def picture(self, split: PictureSplit, index: int) -> Picture:
        """Picture number `index`, from 0; there is no last one."""
        rng = np.random.default_rng((self.seed, ("train", "test").index(split), index))
        number = int(rng.integers(len(self._tasks)))
        task = self._tasks[number]
        group = "seen" if split == "train" else task.groups[rng.integers(len(task.groups))]
        scenes = (task.draw(rng) for _ in range(MAX_DRAWS))
        scene = next(scene for scene in scenes if scene.group == group)
        canvas = Canvas(rng)
        scene.paint(canvas, rng)
        return Picture(canvas.finish(rng), self.tasks[number], group, scene.questions)

    def pictures(self, split: PictureSplit, start: int = 0, count: int | None = None) -> Iterator[Picture]:
        """Consecutive ones; without `count` they do not end."""
        numbers = itertools.count(start) if count is None else range(start, start + count)
        return (self.picture(split, index) for index in numbers)

    def fingerprint(self) -> str:
        """A hex digest that changes when pictures or questions may have changed."""
        content = [RULES_VERSION, self.tasks, self.seed, QUESTIONS]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _open_task(name: str) -> Task:
    if name == "digit":
        return digit_task()
    if name == "word":
        return word_task()
    return CHART_TASK if name == "chart" else SHAPE_TASKS[name]
