"""Volume 3: serving. `from nano_llama import LLM`.

    llm.py, async_engine.py   the public API;  settings.py  its configuration;  outputs.py  what it returns
    requests.py     prompts and parameters -> sequences -> outputs;  preparation.py  that in threads, for AsyncEngine
    engine.py       the loop: schedule a step, run it, sample tokens, retire finished sequences
    scheduler.py    which tokens the next step computes                    }
    blocks.py       the KV cache in blocks: allocated, shared, evicted     } policy:
    sequence.py     one sample in flight, and when it ends                 } no tensors,
    text.py         token ids -> text, incrementally; stop strings         } tested in milliseconds
    adapters.py     adapters beside the model: which are loaded, what each makes of its matrices
    batch.py        the rows of a step, packed without padding             }
    sampler.py      logits -> tokens
    constraints.py  which tokens may come next: JSON schemas, expressions, grammars
    runner/         what computes a step: NumPy (Volume 1) and PyTorch (Volume 2), and padded batches beside them
    cpu/            the CPU runner and its compiled kernels
    admission.py    how many requests may wait before the engine;  step_size.py  how long a step may take
    trace.py        the scheduler's decisions, event by event;  trace_files.py  read again from a file
    statistics.py   what the engine counts;  timing.py  when things happened
    benchmark.py    prefill and decode speed of a runner;  roofline.py  memory bandwidth

Not here: training (vol2_torch), the formulas of sampling (core/sampling).
Tests: tests/vol3/, tests/parity/test_llm_transformers.py.
"""
