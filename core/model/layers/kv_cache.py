"""Keys and values of the language model, in memory that a prefix and a sequence that continues it share."""

from __future__ import annotations

import threading
import weakref

import torch

ROOM = 128
"""Rows reserved after a prefix for an instruction and its answer; a sequence that needs more moves to new memory."""


class KvCache:
    """Keys and values of `length` rows in every layer. Rows are appended in place.

    Of the sequences that continue one prefix, one at a time uses the memory after the prefix's rows; as long as it
    exists, others get copies. So nothing is copied unless two threads work on the same image at once.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, length: int):
        """Use `keys` and `values` [layers, 1, heads, capacity, d], whose first `length` rows are filled."""
        self.keys, self.values, self.length = keys, values, length
        self._layers = list(zip(keys, values, strict=True))
        self._lock = threading.Lock()
        self._branch: weakref.ref[KvCache] | None = None  # the cache that extends this one in place

    @classmethod
    def empty(
        cls, layers: int, heads: int, size: int, capacity: int, device: torch.device, dtype: torch.dtype
    ) -> KvCache:
        """Return a cache without rows for heads of `size` channels."""
        shape = (layers, 1, heads, capacity, size)
        with torch.inference_mode(mode=False):  # other tensors could not be extended outside of that mode
            keys, values = (torch.empty(shape, device=device, dtype=dtype) for _ in range(2))
        return cls(keys, values, 0)

    @property
    def capacity(self) -> int:
        """Number of rows that fit."""
        return self.keys.shape[3]

    def rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the filled keys and values, [layers, 1, heads, length, d] each."""
        return self.keys[..., : self.length, :], self.values[..., : self.length, :]

    def branch(self) -> KvCache:
        """Return a cache that begins with these rows and can be extended; this cache must not be extended."""
        with self._lock:
            if self._branch is None or self._branch() is None:
                branch = KvCache(self.keys, self.values, self.length)
                self._branch = weakref.ref(branch)
                return branch
        branch = KvCache(self.keys, self.values, self.length)
        branch._move(self.capacity)
        return branch

    def reserve(self, rows: int) -> None:
        """Make room for `rows` more rows."""
        needed = self.length + rows
        if needed > self.capacity:
            self._move(max(needed + ROOM, 2 * self.capacity))

    def append(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values [1, heads, n, d] of a layer, after `reserve`; `length` changes in `advance` only.

        Returns all keys and values of the layer, [1, heads, length + n, d] each.
        """
        count, own = keys.shape[2], self._layers[layer]
        for rows, added in zip(own, (keys, values), strict=True):
            rows.narrow(2, self.length, count).copy_(added)
        end = self.length + count
        return own[0].narrow(2, 0, end), own[1].narrow(2, 0, end)

    def advance(self, rows: int) -> None:
        """Count rows that have been appended to every layer."""
        self.length += rows

    def drop(self, rows: int) -> None:
        """Forget the last rows."""
        self.length -= rows

    def _move(self, capacity: int) -> None:
        """Copy the filled rows to new memory."""
        layers, _, heads, _, size = self.keys.shape
        new = KvCache.empty(layers, heads, size, capacity, self.keys.device, self.keys.dtype)
        for target, source in ((new.keys, self.keys), (new.values, self.values)):
            target[..., : self.length, :] = source[..., : self.length, :]
        self.keys, self.values, self._layers = new.keys, new.values, new._layers
