"""Trainer: core's training loop with PyTorch's arithmetic: `Trainer(settings, out).fit()`.

Here is what PyTorch does: the model, its gradient, clipping, the update, and their state in a checkpoint. Not here:
budget, schedule, evaluation, files (training/loop.py), and update rules (optim/).
Tests: tests/vol2/test_trainer.py, test_trainer_resume.py,
test_trainer_killed.py.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import EnvironmentFault, FormatError, UserError
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.core.sampling import SamplingParams
from nano_llama.training.loop import Batch, TrainingLoop
from nano_llama.training.preflight import Preflight, preflight
from nano_llama.training.watchdog import StepResult
from nano_llama.vol2_torch.compiling import compile_layers, compile_loss, leave_uncompiled, wants_compile
from nano_llama.vol2_torch.device import resolve_device
from nano_llama.vol2_torch.generate import generate
from nano_llama.vol2_torch.loss import CHUNK_BYTES, HeadLoss, chunked_head_loss, head_loss, loss_sum, wants_chunks
from nano_llama.vol2_torch.model import Llama, to_tensor
from nano_llama.vol2_torch.optim import make_average, make_optimizers
from nano_llama.vol2_torch.peak import measured_peak
from nano_llama.vol2_torch.precision import resolve_precision
from nano_llama.vol2_torch.scaling import LossScale

RNG = "rng.cpu"  # names of the random generators' states among the training tensors
CUDA_RNG = "rng.cuda"
LOSS_SCALE = "loss_scale"
TRAINED = "trained"  # key of the weights themselves, where the model that is saved is their average


class Trainer(TrainingLoop):
    """Volume 2's training run. The arguments are those of `TrainingLoop`."""

    def check_settings(self) -> None:
        if self.settings.engine != "torch":
            raise UserError(f"engine = {self.settings.engine!r}: this is the trainer of the engine 'torch'.")
        self.torch_device = resolve_device(self.settings.device)
        self.device = str(self.torch_device)

    def expect(self, config: LlamaConfig) -> Preflight:
        self.precision = resolve_precision(self.settings.precision, self.torch_device, config.hidden_size)
        return preflight(
            config, self.settings, narrow=self.precision.dtype.itemsize,
            attended=self.precision.attention_bytes(self.settings.context), logits_limit=CHUNK_BYTES,
            beside=self.torch_device.type != "cuda",
        )  # fmt: skip

    def available_memory(self) -> int | None:
        if self.torch_device.type == "cuda":
            return torch.cuda.mem_get_info(self.torch_device)[0]
        return super().available_memory()

    def peak_flops(self) -> float:
        return measured_peak(self.torch_device, self.precision.dtype)

    def build(self, config: LlamaConfig, weights: Mapping[str, np.ndarray] | None) -> None:
        if weights is None:
            self.model = Llama.init(config, seed=self.settings.seed, device=self.torch_device)
        else:
            self.model = Llama(config).to(self.torch_device).load_params(weights)
        self.parameters = self.model.named_params()
        self.compiled, remark = wants_compile(self.settings, config.num_parameters, self.torch_device)
        lean = wants_chunks(self.settings.batch_size * self.settings.context, config.vocab_size)
        self.plain_loss: HeadLoss = chunked_head_loss if lean else head_loss
        self.head_loss: HeadLoss = self.plain_loss
        self.model.train_with(self.settings.dropout, self.settings.recompute)
        if self.compiled:
            compile_layers(self.model)
            self.head_loss = self.plain_loss if lean else compile_loss(head_loss)
        elif remark:
            self.watcher.remark(remark)
        self.scale = LossScale() if self.precision.name == "fp16" else None
        self.optimizers = make_optimizers(self.parameters, self.settings, self.precision.dtype)
        self.average = make_average(self.parameters, self.optimizers, self.settings)
        torch.manual_seed(self.settings.seed)

    @contextmanager
    def computing(self) -> Iterator[None]:
        before = torch.get_num_threads()
        if self.settings.num_threads:
            torch.set_num_threads(self.settings.num_threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    # -- one update -----------------------------------------------------------------------------------------------

    def gradient(self, batches: Sequence[Batch]) -> StepResult:
        generators = self.random_states()
        try:
            return self._scaled_gradient(batches)
        except BaseException:  # no memory: what dropout drew is drawn again
            self.forget()
            self.set_random_states(generators)
            raise

    def _scaled_gradient(self, batches: Sequence[Batch]) -> StepResult:
        if self.scale is None:
            return self._gradient(batches, 1.0)
        result = self._gradient(batches, self.scale.factor)
        while not math.isfinite(result.grad_norm) and math.isfinite(result.loss) and self.scale.lower():
            self.forget()
            result = self._gradient(batches, self.scale.factor)
        self.scale.count()
        return result

    def _gradient(self, batches: Sequence[Batch], scale: float) -> StepResult:
        """The gradient, computed from `scale` times the loss and divided by it again."""
        counted = max(sum(int(np.count_nonzero(targets != IGNORE_INDEX)) for _, targets, *_ in batches), 1)
        loss = 0.0
        for batch in batches:
            part = self.nats(*batch, z_loss=self.settings.z_loss) / counted  # all parts together are the mean
            (scale * part).backward()
            loss += part.item()
        grads = [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
        if scale != 1.0:
            torch._foreach_mul_(grads, 1.0 / scale)
        self.norm = torch.nn.utils.get_total_norm(grads)
        return StepResult(loss, self.norm.item())

    def update(self, lr: float) -> None:
        if self.settings.clip:
            torch.nn.utils.clip_grads_with_norm_(self.parameters.values(), self.settings.clip, self.norm)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
        if self.average:
            self.average.update()
        self.forget()

    def forget(self) -> None:
        self.model.zero_grad()

    def nats(
        self, tokens: np.ndarray, targets: np.ndarray, documents: np.ndarray | None = None, *, z_loss: float = 0.0
    ) -> torch.Tensor:
        """Nats summed over the counted targets, in the run's precision.  tokens, targets, documents: (B,T) -> ()"""
        apart = None if documents is None else self.to_device(documents)
        with self.precision.autocast():
            return loss_sum(self.model, self.to_device(tokens), self.to_device(targets), self.head_loss, z_loss, apart)

    def to_device(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        if self.torch_device.type == "cuda":  # from pinned memory the copy runs beside the computing
            return tensor.pin_memory().to(self.torch_device, non_blocking=True)
        return tensor.to(self.torch_device)

    def warm_up(self, batch: Batch) -> None:
        """Compile: a forward and backward pass, and a forward pass alone as evaluations take it."""
        if not self.compiled:
            return
        self.watcher.remark("The model is being compiled.")
        try:
            with torch.random.fork_rng():
                self.nats(*batch, z_loss=self.settings.z_loss).backward()
                if self.settings.evaluations:
                    self.sum_nats(*batch[:2])
        except torch._dynamo.exc.TorchDynamoException as error:  # a compiler that is there and does not work
            problem = str(error).strip().splitlines()[0][:200]
            if self.settings.compile == "on":
                raise EnvironmentFault(f"compile = on: it failed ({problem}).", hint="--compile off") from error
            self.watcher.remark(f"Compiling failed ({problem}): the model is trained as it is, which is slower.")
            leave_uncompiled(self.model)
            self.compiled, self.head_loss = False, self.plain_loss
            self.model.train()
        self.forget()

    @torch.no_grad()  # not inference_mode: RoPE tables made under it could never be trained through
    def sum_nats(self, tokens: np.ndarray, targets: np.ndarray) -> float:
        self.model.eval()
        nats = self.nats(tokens, targets).item()
        self.model.train()
        return nats

    @contextmanager
    def averaged(self) -> Iterator[None]:
        if self.average is None:
            yield
            return
        averages, trained = self.average.weights(), {name: p.data for name, p in self.parameters.items()}
        try:
            self._hold(averages)
            yield
        finally:
            self._hold(trained)

    def _hold(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Let the model compute with these tensors; nothing is copied."""
        for name, parameter in self.parameters.items():
            parameter.data = weights[name]

    def generate(self, prompt_ids: Sequence[int], params: SamplingParams) -> Iterator[int]:
        return generate(self.model, prompt_ids, params)

    def peak_memory(self) -> int:
        if self.torch_device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.torch_device)
        return super().peak_memory()

    # -- in and out of a checkpoint -------------------------------------------------------------------------------

    def weights(self) -> dict[str, np.ndarray]:
        weights = self.average.weights() if self.average else self.parameters
        return {name: to_array(tensor) for name, tensor in weights.items()}

    def training_tensors(self) -> dict[str, np.ndarray]:
        tensors = {
            f"{name}/{key}": to_array(value)
            for name, parameter in self.parameters.items()
            for optimizer in self.optimizers
            for key, value in optimizer.state.get(parameter, {}).items()
        }
        if self.average is not None:
            tensors |= {f"{name}/{TRAINED}": to_array(parameter) for name, parameter in self.parameters.items()}
            tensors |= self.average.state()
        if self.scale is not None:
            tensors[LOSS_SCALE] = self.scale.to_array()
        return tensors | {name: to_array(state) for name, state in self.random_states().items()}

    def random_states(self) -> dict[str, torch.Tensor]:
        """Of the generators that dropout draws from."""
        states = {RNG: torch.get_rng_state()}
        if self.torch_device.type == "cuda":
            states[CUDA_RNG] = torch.cuda.get_rng_state(self.torch_device)
        return states

    def set_random_states(self, states: Mapping[str, torch.Tensor]) -> None:
        torch.set_rng_state(states[RNG])
        if self.torch_device.type == "cuda" and CUDA_RNG in states:
            torch.cuda.set_rng_state(states[CUDA_RNG], self.torch_device)

    def restore(self, tensors: Mapping[str, np.ndarray]) -> None:
        owner = {
            parameter: optimizer
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        for full_name in tensors:
            name, slash, key = full_name.rpartition("/")
            if not slash:
                continue  # of no parameter
            if name not in self.parameters:
                raise FormatError(
                    f"The checkpoint's optimizer knows a parameter {name!r} that the model does not have."
                )
            parameter = self.parameters[name]
            if key == TRAINED:
                parameter.data.copy_(owned_tensor(tensors[full_name]))
                continue
            owner[parameter].state[parameter][key] = owned_tensor(tensors[full_name]).to(parameter.device)
        if self.average is not None:
            self.average.load(tensors)
        if self.scale is not None and LOSS_SCALE in tensors:
            self.scale.load(tensors[LOSS_SCALE])
        self.set_random_states({name: owned_tensor(tensors[name]) for name in (RNG, CUDA_RNG) if name in tensors})


def to_array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as NumPy sees it, on the CPU; shares memory where it lies there already."""
    return tensor.detach().cpu().numpy()


def owned_tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor with memory of its own: a checkpoint's arrays are views of a file that may go."""
    return to_tensor(np.array(array))
