"""A CUDA graph without CUDA: the operations of some work are recorded, and run again on the very same tensors.

As in a graph, no Python runs again, so a number of the host that was baked in stays, and a tensor that was put in
another's place is not seen. As on a GPU, waiting for a number is refused while recording.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nano_llama.vol2_torch.launcher import PlainLauncher

aten = torch.ops.aten
WAITING = {
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.is_nonzero.default,
    aten.equal.default,
}  # fmt: skip


class OpRecorder(TorchDispatchMode):
    """calls: (operation, arguments, keyword arguments, results)"""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        masks = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.dtype == torch.bool]
        if operation in WAITING or (operation in (aten.index.Tensor, aten.index_put_.default) and masks):
            raise RuntimeError(f"operation not permitted when stream is capturing: {operation}")
        results = operation(*args, **kwargs)
        self.calls.append((operation, args, kwargs, results))
        return results


class RecordingLauncher(PlainLauncher):
    """recordings: how many were made. operations: how many the last one holds."""

    def __init__(self, place):
        super().__init__(place)
        self.recordings, self.operations = 0, 0

    def record(self, work):
        recorder = OpRecorder()
        with recorder:
            work()
        self.recordings, self.operations = self.recordings + 1, len(recorder.calls)
        done = [True]  # recording a graph does not run it; recording these operations did

        @torch.no_grad()
        def again():
            if done:
                done.clear()
                return
            for operation, args, kwargs, results in recorder.calls:
                for old, new in zip(tree_leaves(results), tree_leaves(operation(*args, **kwargs)), strict=True):
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)

        return again
