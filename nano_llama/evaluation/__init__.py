"""How good a model is: against compressors, on lm-evaluation-harness's tasks, in samples, and what it has memorised.

    compressors.py     bits per byte of xz and bzip2, which know no language
    harness.py         our models inside lm-evaluation-harness
    samples.py         texts from fixed prompts and seeds, none chosen by hand
    vqa.py             answers to questions about pictures
    memorisation.py    the longest passage of a sample that is in the training text

Not here: a model's own bits per byte (training/evaluation.py). Tests: tests/evaluation/.
"""
