"""Triton kernels beside their references, with faults planted in them, and compiled for a card that is not here."""

import importlib.util
import inspect
import os
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]


def numbers(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def relative_error(found, wanted):
    assert found.shape == wanted.shape
    error = (found.double() - wanted.double()).abs().max() / wanted.double().abs().max().clamp(min=1e-12)
    return error.nan_to_num(torch.inf).item()  # max() passes over NaN


def errors(kernel, reference, *inputs):
    """The largest relative error of outputs, and of the gradients that arbitrary gradients of outputs lead to."""
    outcomes = []
    for function in (kernel, reference):
        own = [x.clone().requires_grad_() for x in inputs]
        outputs = function(*own)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        arriving = [numbers(*y.shape, seed=number + 1, dtype=y.dtype) for number, y in enumerate(outputs)]
        outcomes.append((outputs, torch.autograd.grad(outputs, own, arriving)))
    return tuple(max(map(relative_error, *pair)) for pair in zip(*outcomes, strict=True))


def plant(monkeypatch, folder, module, kernel, right, wrong):
    """In the source of module.kernel, `right` becomes `wrong`."""
    source = inspect.getsource(getattr(module, kernel).fn)
    assert source.count(right) == 1, f"{right!r} stands in {kernel} {source.count(right)} times"
    path = folder / f"wrong_{kernel}.py"
    path.write_text("import triton\nimport triton.language as tl\n\n\n" + source.replace(right, wrong))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    faulty = importlib.util.module_from_spec(spec)
    vars(faulty).update({name: value for name, value in vars(module).items() if name not in vars(faulty)})
    spec.loader.exec_module(faulty)
    monkeypatch.setattr(module, kernel, getattr(faulty, kernel))


CARD = ("cuda", 90, 32)  # H100 and H200: compute capability 9.0


def run_compiling(script):
    """Run Python with Triton's compiler in place of its interpreter -> what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"))), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def compile_for_card(kernel, arguments, num_warps=4):
    """Machine code of a kernel for CARD, which need not be here, in a process without the interpreter.

    arguments: name -> Triton's name of the type ("*bf16", "i32"), or the value of a constant.
    """
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    signature = {name: value if isinstance(value, str) else "constexpr" for name, value in arguments.items()}
    constants = {name: value for name, value in arguments.items() if not isinstance(value, str)}
    source = ASTSource(kernel, signature={name: signature[name] for name in kernel.arg_names}, constexprs=constants)
    return compile(source, target=GPUTarget(*CARD), options={"num_warps": num_warps}).asm["cubin"]
