"""BatchArrays: what a step is to compute. cpu/batch.py fills them; step.py and attention.py read them.

Tests: tests/vol3/cpu/test_runner.py.
"""

from typing import NamedTuple

import numpy as np

# Indices into `sizes`; decode rows come first, prefill rows after them.
NUM_ROWS, NUM_TASKS, NUM_SAMPLED, NUM_DECODE, NUM_RUNS, NUM_SAMPLED_RUNS = range(6)
ROW, TOKENS, POSITION, TABLE, SPLIT, SLOT = range(6)  # columns of `tasks`, in the order of Task
FIRST, COUNT = range(2)  # columns of `kv_splits`
ADAPTER, START, STOP = range(3)  # columns of `runs`
ALL_SPLITS = -1  # in the column SPLIT: the task goes through all of its context


class Task(NamedTuple):
    """A row of `tasks`: a tile of queries, for each key/value head."""

    row: int  # the first
    tokens: int
    position: int  # of the first
    table: int  # where its sequence's block table begins in `tables`
    split: int = ALL_SPLITS  # a KV split that is a task of its own,
    slot: int = 0  # and where its partial result goes


class BatchArrays(NamedTuple):
    """Filled anew for every step, never moved. Sizes in brackets are capacities."""

    sizes: np.ndarray  # (6,) int64: rows N, tasks, logit rows R, decode rows, runs of rows and of logit rows
    tokens: np.ndarray  # [N] int64: an id, or below zero -1 - i, where the row begins as row i of `embeddings`
    embeddings: np.ndarray  # [rows,D] float32
    blocks: np.ndarray  # [N] int64: the block of each row's own key and value,
    slots: np.ndarray  # [N] int64: and the position within it
    cos: np.ndarray  # [N,K/2] float32
    sin: np.ndarray  # [N,K/2] float32
    tables: np.ndarray  # [..] int64: the block tables of all sequences, one after the other
    tasks: np.ndarray  # [tasks,6] int64
    kv_splits: np.ndarray  # [N,2] int64: a row's first slot and number of splits, where these are tasks; else 0
    logit_rows: np.ndarray  # [R] int64
    runs: np.ndarray  # [N,3] int64: rows START ... STOP-1 have adapter number ADAPTER; rows in no run have none
    sampled_runs: np.ndarray  # [R,3] int64: the same of the logit rows, in their order
