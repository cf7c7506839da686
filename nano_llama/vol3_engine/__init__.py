"""Volume 3: serving. `from nano_llama import LLM`.

    sequence.py     one text in the making, and when it ends         }
    text.py         token ids -> text, piece by piece; stop strings  } policy:
    blocks.py       the cache in blocks: held, shared, found again   } no tensors,
    scheduler.py    which rows the next step computes                } tested in milliseconds
    batch.py        a step's rows, packed without padding            }
    requests.py     what a caller asks -> sequences -> what he gets
    sampler.py      logits -> tokens
    engine.py       the loop: plan a step, run it, choose tokens, let finished texts go
    trace.py        what the scheduler decided, as JSON lines
    runner/         where the tensors are: a protocol; in NumPy, in PyTorch, and the padded twin
    cpu/            the runner over our own compiled kernels
    settings.py     how the engine is set up;  outputs.py  what it returns;  llm.py, async_engine.py  the public face

Not here: training (vol2_torch) and sampling's formulas (core/sampling).
Tests: tests/vol3/, tests/parity/test_llm_transformers.py.
"""
