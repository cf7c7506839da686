"""What a model is worth beside others: compressors, the tasks of lm-evaluation-harness, samples, memorisation.

    compressors.py     bits per byte of xz and bzip2: what knows no language
    harness.py         our models inside lm-evaluation-harness
    samples.py         texts from fixed prompts and seeds, none chosen by hand
    memorisation.py    the longest passage of a sample that stands in the training text

Not here: what bits per byte of a model are (training/evaluation.py). Tests: tests/evaluation/.
"""
