"""Training with PyTorch: a run of Volume 2 is `Trainer(settings, out).fit()`.

`TorchBackend` is what the loop of training/loop.py needs of this engine; its step is step.py or graph_step.py, the
update rules are in optim/. Tests: tests/vol2/test_trainer.py, test_trainer_resume.py, test_trainer_killed.py.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nano_llama.core.errors import EnvironmentFault, UserError
from nano_llama.core.sampling import SamplingParams
from nano_llama.core.vision.config import ModelConfig, language_config
from nano_llama.data.batches import Batch
from nano_llama.data.vqa.answers import Answer
from nano_llama.training.backend import Ahead, Notice, StepResult
from nano_llama.training.checkpoint_keys import TRAINED, join, split
from nano_llama.training.loop import TrainingLoop
from nano_llama.training.preflight import Preflight, check_memory, preflight
from nano_llama.training.settings import TrainSettings
from nano_llama.training.setup import set_up_run
from nano_llama.vol2_torch.compiling import (
    compile_layers,
    compile_loss,
    compiled_orthogonalize,
    leave_uncompiled,
    wants_compile,
)
from nano_llama.vol2_torch.determinism import prepare_determinism
from nano_llama.vol2_torch.device import resolve_device
from nano_llama.vol2_torch.graph_step import check_graph_settings, make_step
from nano_llama.vol2_torch.kernels.choice import PLAIN, Kernels, check_kernels, choose_kernels
from nano_llama.vol2_torch.loss import (
    CHUNK_BYTES,
    HeadLoss,
    at_counted_positions,
    chunked_head_loss,
    fitting_head_loss,
    head_loss,
    wants_chunks,
)
from nano_llama.vol2_torch.loss_scaling import LossScale
from nano_llama.vol2_torch.model import Llama
from nano_llama.vol2_torch.optim import Average, Muon, make_average
from nano_llama.vol2_torch.precision import Precision, resolve_precision
from nano_llama.vol2_torch.step import Step
from nano_llama.vol2_torch.strategy import ALONE, Spread, Strategy
from nano_llama.vol2_torch.training_device import TorchDevice
from nano_llama.vol2_torch.training_state import (
    CUDA_RNG,
    RNG,
    optimizer_tensors,
    owned_tensor,
    random_states,
    restore_parameters,
    set_random_states,
    to_array,
)
from nano_llama.vol2_torch.vision.generate import answer_in
from nano_llama.vol2_torch.vision.model import VisionLanguageModel
from nano_llama.vol2_torch.vision.train import optimizers_of

LOSS_SCALE = "loss_scale"  # key among the training tensors


def Trainer(settings: TrainSettings, out: str | Path, **options: Any) -> TrainingLoop:
    """`Trainer(settings, out).fit()`: a run of Volume 2. options: those of `set_up_run`."""
    return set_up_run(TorchBackend, settings, out, **options)


class TorchBackend:
    """The arithmetic of a run in PyTorch, composed of parts; training/backend.py says what each method does.

    parameters: those that are trained and saved, by name. optimizers: together they own each parameter once. average:
    of the parameters; it is evaluated and saved in their place. strategy: where they lie, and what computes gradients.
    step: what has it do that. kernels: those that the model already computes with.
    """

    def __init__(
        self, settings: TrainSettings, model: Llama | VisionLanguageModel, *, parameters: Mapping[str, nn.Parameter],
        optimizers: Sequence[torch.optim.Optimizer], average: Average | None, device: TorchDevice,
        precision: Precision, expected: Preflight, notice: Notice, strategy: Strategy, step: Step,
        compiled: bool = False, kernels: Kernels = PLAIN,
    ):  # fmt: skip
        self.settings, self.model, self.config = settings, model, model.config
        self.parameters, self.optimizers, self.average = parameters, optimizers, average
        self.device, self.precision, self.expected = device, precision, expected
        self.notice, self.strategy, self.step, self.kernels = notice, strategy, step, kernels
        self.scale = LossScale() if precision.name == "fp16" else None
        self.begun: Sequence[Batch] | None = None  # whose gradient is being computed
        self.states_before: dict[str, torch.Tensor] = {}  # of the random generators, before that
        chunked = wants_chunks(settings.batch_size * settings.context, language_config(model.config).vocab_size)
        self.plain_loss: HeadLoss = kernels.head_loss or (chunked_head_loss if chunked else head_loss)
        if settings.from_examples or settings.from_pictures:  # of which few tokens are counted
            self.plain_loss = at_counted_positions(kernels.head_loss or fitting_head_loss)
        strategy.head_loss = self.plain_loss
        model.train_with(settings.dropout, settings.activation_checkpointing)
        self.compiled = compiled
        if compiled and self.plain_loss is head_loss:
            strategy.head_loss = compile_loss(head_loss)

    @staticmethod
    def check_settings(settings: TrainSettings) -> None:
        if settings.engine != "torch":
            raise UserError(f"engine = {settings.engine!r}: this is the trainer of the engine 'torch'.")
        place = resolve_device(settings.device)
        check_graph_settings(settings, place)
        check_kernels(settings, place)

    @classmethod
    def create(
        cls, settings: TrainSettings, config: ModelConfig, weights: Mapping[str, np.ndarray] | None, notice: Notice,
        *, adapter: Mapping[str, np.ndarray] | None = None, spread: Spread = ALONE,
    ) -> "TorchBackend":  # fmt: skip
        place = spread.place(settings)
        prepare_determinism(settings, place)
        precision = resolve_precision(settings.precision, place, language_config(config).hidden_size)
        device = TorchDevice(place, precision.dtype, spread.threads(settings, place, notice), settings.deterministic)
        expected = preflight(
            config, settings, compute_bytes=precision.dtype.itemsize,
            attention_bytes=precision.attention_bytes(settings.context), logits_limit=CHUNK_BYTES,
            host_copy=device.is_cuda,
        )  # fmt: skip
        if spread.size == 1:
            check_memory(expected, settings, device.available_memory())
        model, trained = spread.model(settings, config, weights, adapter, place, precision.dtype, notice)
        kernels = choose_kernels(settings, language_config(config), place, precision.dtype, notice)
        kernels.put_into(model, precision.dtype)
        compiled, why_not = wants_compile(settings, config.num_parameters, place)
        if compiled:  # before it is spread over processes, whose hooks stay outside of what is compiled
            compile_layers(model)
        elif why_not:
            notice(why_not)
        strategy = spread.strategy(model, trained, weights, device, precision, settings)
        parameters = strategy.parameters
        polar = compiled_orthogonalize(settings, place)
        optimizers = optimizers_of(config, parameters, settings, precision.dtype, spread.muon, polar)
        backend = cls(
            settings, model, parameters=parameters, optimizers=optimizers,
            average=make_average(parameters, optimizers, settings), device=device, precision=precision,
            expected=expected, notice=notice, strategy=strategy, compiled=compiled,
            step=make_step(settings, model, strategy, optimizers, device, precision, notice),
            kernels=kernels,
        )  # fmt: skip
        torch.manual_seed(settings.seed)  # of dropout
        return backend

    # -- one update -----------------------------------------------------------------------------------------------

    def gradient(self, batches: Sequence[Batch]) -> StepResult:
        try:
            if self.begun is not batches:
                self.begin(batches)
            return self._sound_result(batches)
        except BaseException:  # out of memory: the same batches must draw the same dropout again
            self.zero_grad()
            set_random_states(self.states_before, self.device.place)
            raise
        finally:
            self.begun = None

    @property
    def ahead(self) -> Ahead | None:
        return self if self.step.asynchronous else None

    def begin(self, batches: Sequence[Batch]) -> None:
        self.begun, self.states_before = batches, random_states(self.device.place)
        self.step.begin(batches, self.scale.factor if self.scale else 1.0)

    def prefetch(self, batches: Sequence[Batch]) -> None:
        self.step.prefetch(batches)

    def _sound_result(self, batches: Sequence[Batch]) -> StepResult:
        """Of the gradient that was begun; in fp16, with a scale at which it does not overflow."""
        result = self.step.result()
        if self.scale is not None:
            while not math.isfinite(result.grad_norm) and math.isfinite(result.loss) and self.scale.lower():
                self.step.zero_grad()
                self.step.begin(batches, self.scale.factor)
                result = self.step.result()
            self.scale.count()
        return result

    def update(self, lr: float) -> None:
        self.step.update(lr)
        if self.average:
            self.average.update()

    def zero_grad(self) -> None:
        self.step.zero_grad()

    def warm_up(self, batch: Batch) -> None:
        """Compile: a forward and backward pass, and a forward pass alone as evaluations need it."""
        if not self.compiled:
            return
        self.notice("The model is being compiled.")
        try:
            with torch.random.fork_rng():
                self.strategy.backward(batch, 1, 1.0, last=True)
                self.strategy.finish_gradients()
                if self.settings.evaluations:
                    self.eval_loss_sum(*(batch if self.settings.from_pictures else batch[:2]))
            for optimizer in self.optimizers:
                if type(optimizer) is Muon:  # ranks that share the matrices compile for theirs in the first step
                    optimizer.warm_up()
        except torch._dynamo.exc.TorchDynamoException as error:  # a compiler that exists but does not work
            problem = str(error).strip().splitlines()[0][:200]
            if self.settings.compile == "on":
                raise EnvironmentFault(f"compile = on: it failed ({problem}).", hint="--compile off") from error
            self.notice(f"Compiling failed ({problem}): the model is trained uncompiled, which is slower.")
            leave_uncompiled(self.model)
            self.compiled, self.strategy.head_loss = False, self.plain_loss
            self.model.train()
        self.model.zero_grad()

    # -- evaluation -----------------------------------------------------------------------------------------------

    @torch.no_grad()  # not inference_mode: RoPE tables made under it could never be trained through
    def eval_loss_sum(
        self, tokens: np.ndarray, targets: np.ndarray, documents: np.ndarray | None = None, *images: np.ndarray
    ) -> float:
        self.model.eval()
        nats = self.strategy.evaluate((tokens, targets) if documents is None else (tokens, targets, documents, *images))
        self.model.train()
        return nats

    def use_averaged_weights(self) -> AbstractContextManager:
        return nullcontext() if self.average is None else self.strategy.swapped(self.average.weights())

    def figures(self) -> dict[str, Any]:
        return {**self.strategy.figures(), **self.kernels.figures}

    @property
    def answer(self) -> Answer | None:
        if not isinstance(self.model, VisionLanguageModel):
            return None
        return partial(answer_in, self.precision, self.model)

    def generate(self, prompt_ids: Sequence[int], params: SamplingParams) -> Iterator[int]:
        return self.strategy.generate(prompt_ids, params)

    # -- into a checkpoint, and back ------------------------------------------------------------------------------

    def weights(self) -> Mapping[str, np.ndarray]:
        return self.strategy.arrays(self.average.weights() if self.average else self.parameters, {})

    def training_tensors(self) -> Mapping[str, np.ndarray]:
        kept = optimizer_tensors(self.parameters, self.optimizers)
        if self.average is not None:
            kept |= {join(name, TRAINED): parameter for name, parameter in self.parameters.items()}
        states = random_states(self.device.place) if self.begun is None else self.states_before
        beside = {name: to_array(state) for name, state in states.items()}
        if self.average is not None:
            beside |= self.average.state()
        if self.scale is not None:
            beside[LOSS_SCALE] = self.scale.to_array()
        return self.strategy.arrays(kept, beside)

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        for name, parameter in self.parameters.items():
            parameter.data.copy_(self.strategy.placed(parameter, weights[name]))
        self.average = None  # they may be an average

    def restore(self, tensors: Mapping[str, np.ndarray]) -> None:
        here = {name: tensors[name] for name in tensors if not self.strategy.lies_elsewhere(split(name)[0])}
        restore_parameters(here, self.parameters, self.optimizers, self.strategy.placed)
        if self.average is not None:
            self.average.load(tensors)
        if self.scale is not None and LOSS_SCALE in tensors:
            self.scale.load(tensors[LOSS_SCALE])
        states = {name: owned_tensor(tensors[name]) for name in (RNG, CUDA_RNG) if name in tensors}
        set_random_states(states, self.device.place)
