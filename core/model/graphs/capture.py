"""Functions of tensors that are recorded once and then replayed on buffers at fixed addresses."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch

Function = Callable[..., tuple[torch.Tensor, ...]]
Recorder = Callable[[Callable[[], tuple[torch.Tensor, ...]]], tuple[Callable[[], None], tuple[torch.Tensor, ...]]]
"""Records a function without arguments; returns its replay, and its outputs, which every replay overwrites."""

WARM_UP = 3  # runs before a capture, in which libraries choose their kernels and allocate their memory


def record_cuda_graph(
    device: torch.device, function: Callable[[], tuple[torch.Tensor, ...]]
) -> tuple[Callable[[], None], tuple[torch.Tensor, ...]]:
    """Record the kernels of a function as a CUDA graph of `device` (with the first argument bound, a Recorder)."""
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                function()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode='thread_local'):  # other threads may allocate memory
            outputs = function()

    def replay() -> None:
        with torch.cuda.device(device):
            graph.replay()

    return replay, outputs


def record_calls(
    function: Callable[[], tuple[torch.Tensor, ...]],
) -> tuple[Callable[[], None], tuple[torch.Tensor, ...]]:
    """Call the function again instead of recording anything (a Recorder): for the CPU, which has no graphs."""
    outputs = function()

    def replay() -> None:
        for buffer, value in zip(outputs, function(), strict=True):
            if buffer.data_ptr() != value.data_ptr():
                buffer.copy_(value)

    return replay, outputs


class StaticCall:
    """A recorded function with its buffers. One thread at a time may use it."""

    def __init__(self, function: Function, inputs: Sequence[torch.Tensor], record: Recorder):
        """Record `function` for inputs like these, which are copied."""
        self._buffers = tuple(each.clone() for each in inputs)
        self._held: list[torch.Tensor | None] = [None] * len(inputs)  # inputs whose values are in the buffers
        self._replay, self._outputs = record(lambda: function(*self._buffers))

    def __call__(self, *inputs: torch.Tensor, unchanged: int = 0) -> tuple[torch.Tensor, ...]:
        """Run the function; its outputs are overwritten by the next call.

        Args:
            inputs: Tensors of the recorded shapes.
            unchanged: Number of leading inputs that never change in place: the tensors of the last call are not copied
                again.
        """
        for index, (buffer, value) in enumerate(zip(self._buffers, inputs, strict=True)):
            if self._held[index] is not value:
                buffer.copy_(value)
            self._held[index] = value if index < unchanged else None
        self._replay()
        return self._outputs


class StaticCalls:
    """Recorded functions by bucket. Only those used last are kept, because each holds memory."""

    def __init__(self, record: Recorder, wrap: Callable[[Function], Function], limit: int):
        """Keep the `limit` functions that were used last; each is recorded after `wrap` has compiled it."""
        self._record, self._wrap, self._limit = record, wrap, limit
        self._calls: dict[Hashable, StaticCall] = {}

    def __contains__(self, bucket: Hashable) -> bool:
        return bucket in self._calls

    def get(self, bucket: Hashable, function: Function, inputs: Sequence[torch.Tensor]) -> StaticCall:
        """Return the call of a bucket, which is recorded for `inputs` if it is new."""
        call = self._calls.pop(bucket, None)
        if call is None:
            while len(self._calls) >= self._limit:
                self._calls.pop(next(iter(self._calls)))
            call = StaticCall(self._wrap(function), inputs, self._record)
        self._calls[bucket] = call  # at the end: the one that was used last
        return call


def smallest_bucket(buckets: Sequence[int], size: int) -> int | None:
    """Return the smallest of the ascending `buckets` that holds `size`, None if none does."""
    return next((bucket for bucket in buckets if bucket >= size), None)
