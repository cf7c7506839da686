"""shapes-vqa: pictures that we render, with questions about them and their answers. Nothing is stored.

    source = ShapesVQA(tasks=("shape", "count"), seed=0)
    source.picture("train", 7)      always the same one: .image (64,64,3) bytes, .questions, .task, .group
    contact_sheet(pictures)         to look at them

Read it in this order: questions.py, canvas.py, one of the tasks (shapes.py and shape_tasks.py, charts.py, digits.py,
words.py), source.py. Tests: tests/data/vqa/.
"""

from nano_llama.data.vqa.contact_sheet import contact_sheet
from nano_llama.data.vqa.questions import QUESTIONS, Question
from nano_llama.data.vqa.source import TASKS, Picture, ShapesVQA

__all__ = ["QUESTIONS", "TASKS", "Picture", "Question", "ShapesVQA", "contact_sheet"]
