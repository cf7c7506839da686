"""Fine-tuning: a model learns from examples, by an adapter beside its weights or by the weights themselves.

    settings.py    the settings of a training run, with those of adapters and examples, and defaults that suit them

The loop, its files and its checkpoints are those of training/. The data are data/sft's, the adapters' arithmetic is
the volumes'. Tests: tests/training/finetune/.
"""

from nano_llama.training.finetune.settings import FinetuneSettings

__all__ = ["FinetuneSettings"]
