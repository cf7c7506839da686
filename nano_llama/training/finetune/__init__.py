"""Fine-tuning: a model learns from examples, by an adapter beside its weights or by the weights themselves.

    settings.py       the settings of a training run, with those of adapters and examples, and defaults that suit them
    run.py            a run with its report: examined before, trained, examined after
    examination.py    what a model can do: validation loss, answers to validation prompts, loss on general text
    held_out.py       that general text
    report.py         report.md

The loop, its files and its checkpoints are those of training/. The data are data/sft's, the adapters' arithmetic is
the volumes'. Tests: tests/training/finetune/.
"""

from nano_llama.training.finetune.settings import FinetuneSettings

__all__ = ["FinetuneSettings"]
