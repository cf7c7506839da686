"""Volume 3: serving. `from nano_llama import LLM`.

    sequence.py   one text in the making, and when it ends        } policy:
    text.py       token ids -> text, piece by piece; stop strings } no tensors,
    scheduler.py  which texts run together within the memory      } tested in milliseconds
    requests.py   what a caller asks -> sequences -> what he gets
    engine.py     the loop: run a batch, choose tokens, let finished texts go
    runner/       where the tensors are: model and key/value cache of one batch
    settings.py   how the engine is set up;  outputs.py  what it returns;  llm.py  the public face

Not here: training (vol2_torch) and sampling's formulas (core/sampling). Paged memory and kernels of its own come later.
Tests: tests/vol3/, tests/parity/test_llm_transformers.py.
"""
