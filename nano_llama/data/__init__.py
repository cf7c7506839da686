"""Text -> token shards -> batches. Tests: tests/data/.

sources.py    a name, file or folder -> documents in two splits     corpus.py  builtin.py  readers.py  download.py
prepare.py    documents -> token shards on disk, in parallel           encode.py   worker.py   lock.py
shards.py     the file format of a shard: memory-mapped, checksummed
dataset.py    a folder of shards as two long rows of tokens            report.py
batches.py    a row of tokens -> shuffled training batches, validation windows
prefetch.py   the same batches, made ahead by worker processes
sft/          questions and answers -> batches in which the answers are learned
"""
