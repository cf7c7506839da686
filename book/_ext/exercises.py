"""An exercise of `nano-llama learn` where its chapter asks it; its words are the command's own.

    ```{exercise} 06_norms/02_qk_norm
    ```

Tests: tests/book/test_exercises.py.
"""

from html import escape
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from . import facts
from .facts import BookError


class ExerciseBox(SphinxDirective):
    """Show an exercise's title, difficulty, statement and command."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        from nano_llama.learn import exercises

        known = {exercise.name: exercise for exercise in exercises()}
        name = self.arguments[0]
        if name not in known:
            raise BookError(f"{self.env.docname}: nano-llama learn has no exercise {name}")
        exercise = known[name]
        facts.add(self.env, "exercises", name)
        stars = "●" * exercise.stars + "○" * (3 - exercise.stars)
        title = (
            f'<p class="head" id="exercise-{escape(name.split("/")[-1])}"><b>{escape(exercise.title)}</b> '
            f'<span class="stars" role="img" aria-label="difficulty {exercise.stars} of 3">{stars}</span> '
            f"about {exercise.minutes} minutes</p>"
        )
        start = f'<pre class="command">nano-llama learn goto {escape(name)}\nnano-llama learn check</pre>'
        box = nodes.container(classes=["exercise"])
        box += nodes.raw("", title, format="html")
        box += self.parse_text_to_nodes(exercise.statement)
        box += nodes.raw("", start, format="html")
        return [box]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("exercise", ExerciseBox)
    return {"version": "1", "parallel_read_safe": False}
