"""Supervised fine-tuning (SFT): examples of questions and answers -> batches in which the answers are learned.

    examples.py     files -> examples, each with its file and line, in two splits
    forms.py        one record of a file -> an example: messages, prompt and completion, ShareGPT, Alpaca, text
    sequences.py    examples -> token ids, with what is learned of them, within the context
    packing.py      which sequences share a row
    batches.py      rows -> shuffled training batches, and all of them in order for validation
    summary.py      what is in the data, for the reader to check before a step: counts, what is cut, samples

Which tokens are an answer's is found by tokenizer/answers.py. Tests: tests/data/sft/.
"""
