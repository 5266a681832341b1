"""The launches of `supernet_eval` on a GPU: tables and workspace as tensors, then one call of the kernels each."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from nas_engine.ops.boundary import call_native
from nas_engine.ops.supernet_program import IntArray

_OP = "supernet_eval"
_THREADS = 128  # of a block; the most that the kernels take
_BLOCKS_PER_MULTIPROCESSOR = 3  # that fit there together
_WORKSPACE_LIMIT = 2 << 30  # bytes; more paths than fit are scored in several calls
_BATCH = 1  # Statistics.BATCH

Scores = tuple[Tensor, Tensor, Tensor | None]


@dataclass(frozen=True, slots=True)
class GpuPaths:
    """Scores paths of a described program where their images are.

    That is a CUDA device, or the CPU where the kernels were compiled as plain C++ for tests.

    Attributes:
        module: the native module.
        described: the program as native code holds it, with addresses of that device.
        classes: how many logits it has.
        blocks: how many blocks of threads may run at once.
        threads: of a block.
        workspace_limit: bytes that a call may use beside its arguments, unless a single path needs more.
    """

    module: ModuleType
    described: Any
    classes: int
    blocks: int
    threads: int = _THREADS
    workspace_limit: int = _WORKSPACE_LIMIT

    @staticmethod
    def on_device(module: ModuleType, described: Any, classes: int, device: torch.device) -> GpuPaths:
        """With as many blocks as run on `device` at once."""
        multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
        return GpuPaths(module, described, classes, _BLOCKS_PER_MULTIPROCESSOR * multiprocessors)

    def score(
        self,
        genes: IntArray,
        images: Tensor,
        labels: Tensor,
        statistics: int,
        batches: Sequence[Tensor],
        *,
        want_logits: bool = False,
    ) -> Scores:
        """(loss [paths], correct [paths], logits [paths, images, classes] or None) on the CPU; as `supernet_eval`.

        Logits that nobody wants take no memory, neither here nor on the device.
        """
        plan = self._plan(genes, len(images), statistics == _BATCH)
        batch_plans = [self._plan(genes, len(batch), True) for batch in batches]
        largest = max(one.workspace_bytes for one in (plan, *batch_plans))
        if len(genes) > 1 and largest > self.workspace_limit:
            middle = len(genes) // 2
            first, second = (
                self.score(half, images, labels, statistics, batches, want_logits=want_logits)
                for half in (genes[:middle], genes[middle:])
            )
            logits = None if first[2] is None or second[2] is None else torch.cat((first[2], second[2]))
            return torch.cat((first[0], second[0])), torch.cat((first[1], second[1])), logits
        loss = torch.empty(len(genes), dtype=torch.float64, device=images.device)
        correct = torch.empty(len(genes), dtype=torch.int64, device=images.device)
        shape = (len(genes), len(images), self.classes)
        logits = torch.empty(shape, device=images.device) if want_logits else None
        with torch.cuda.device(images.device) if images.is_cuda else nullcontext():
            averages = self._averages(batch_plans, batches)
            self._launch(plan, images, labels, averages, None, 0.0, (loss, correct, logits))
        return loss.cpu(), correct.cpu(), None if logits is None else logits.cpu()

    def _averages(self, plans: Sequence[Any], batches: Sequence[Tensor]) -> Tensor | None:
        """Statistics of each path over all batches, float32 [paths, 2, norm channels]."""
        averages: Tensor | None = None
        for index, (plan, batch) in enumerate(zip(plans, batches, strict=True)):
            if averages is None:
                averages = torch.zeros(plan.paths, 2, plan.norm_channels, device=batch.device)
            self._launch(plan, batch, None, None, averages, 1 / (index + 1), (None, None, None))
        return averages

    def _plan(self, genes: IntArray, images: int, measured: bool) -> Any:
        arguments = (self.described, genes.ctypes.data, len(genes), measured, images, self.blocks, self.threads)
        return call_native(_OP, self.module.DevicePlan, *arguments, shapes={"genes": genes.shape})

    def _launch(
        self,
        plan: Any,
        images: Tensor,
        labels: Tensor | None,
        statistics: Tensor | None,
        averages: Tensor | None,
        average_weight: float,
        outputs: Sequence[Tensor | None],
    ) -> None:
        workspace = torch.empty(plan.workspace_bytes, dtype=torch.uint8, device=images.device)
        tables = torch.frombuffer(bytearray(plan.tables), dtype=torch.uint8)
        workspace[: len(tables)].copy_(tables)
        stream = torch.cuda.current_stream().cuda_stream if images.is_cuda else 0
        pointers = [_address(tensor) for tensor in (workspace, images, labels, statistics, averages)]
        results = [_address(tensor) for tensor in outputs]
        arguments = (plan, *pointers, average_weight, *results, stream)
        call_native(_OP, self.module.supernet_eval_cuda, *arguments, shapes={"images": images.shape})


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
