"""Rows that are read from a disk, or made, a block at a time: see the page of `distributed`."""
from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

CHUNK = 2**18   # numbers that are read at a time


class Block(NamedTuple):
    "Some rows, and where they are from"
    where: str          # a file, or the number of a block
    first: int          # the number of the first row there
    rows: np.ndarray    # (m, f)

    @property
    def mark(self) -> tuple:
        "What a block is known by in a later pass"
        return self.rows.shape, zlib.crc32(np.ascontiguousarray(self.rows).data)


def _read(X: np.ndarray, a: int, m: int) -> np.ndarray:
    "Rows a to a + m; of a memory map by reading the file, which maps none of its pages"
    if not (isinstance(X, np.memmap) and isinstance(X.base, mmap) and X.flags.c_contiguous):
        return X[a:a + m]
    m, width = min(m, len(X) - a), X.shape[1]
    at = X.offset + a * width * X.dtype.itemsize
    flat = np.fromfile(X.filename, X.dtype, m * width, offset=at)   # type: ignore[arg-type]
    return flat.reshape(m, width)


def chunks(
    X,           # path of a .npy file, memory map or array
    name: str,   # what an array is called in messages; a file has its own name
) -> Iterator[Block]:
    "A file or an array, some rows at a time"
    if isinstance(X, (str, Path)):
        try: X = np.load(X, mmap_mode="r")
        except (ValueError, EOFError) as e: raise ValueError(f"{X} is no .npy file of numbers: {e}") from None
    if isinstance(X, np.memmap): name = f"file {X.filename}"
    else: X = np.asarray(X)
    if X.ndim != 2:
        raise ValueError(f"{name} must have 2 dimensions (rows, columns), got shape {X.shape}.")
    if X.dtype.kind not in "fiub": raise ValueError(f"{name} holds {X.dtype}: pass real numbers.")
    step = max(1, CHUNK // max(X.shape[1], 1))
    kept = X.dtype if X.dtype in (np.float32, np.float64) else np.float64
    for a in range(0, len(X), step):
        yield Block(name, a, np.asarray(_read(X, a, step), dtype=kept))


@dataclass(frozen=True)
class Known:
    "What the first pass over the blocks has seen"
    marks: tuple            # of each block
    shape: tuple[int, int]  # of the whole matrix
    kind: np.dtype          # float32 or float64
    sum: float              # of all entries
    sq: float               # of their squares
    top: float              # the largest


def _check(block: Block, first: Block) -> None:
    "An error where a block is not of the matrix of the first one, or holds what is no data"
    where, at, B = block
    if (B.shape[1], B.dtype) != (first.rows.shape[1], first.rows.dtype):
        raise ValueError(f"{where} has {B.shape[1]} columns of {B.dtype}, and {first.where} has "
                         f"{first.rows.shape[1]} of {first.rows.dtype}: all must be rows of one matrix.")
    fine = (B >= 0) & (B < np.inf)
    if fine.all(): return
    i, j = np.argwhere(~fine)[0]
    raise ValueError(f"{where}: row {at + i} has {B[i, j]:g} in column {j} (both counted from 0). "
                     "Rows that are read in blocks must be finite, complete and >= 0.")


def first_pass(blocks: Iterable[Block]) -> Known:
    "Check all blocks, and note what they are known by"
    first, marks, seen = None, [], []
    for block in blocks:
        first = first or block
        _check(block, first)
        flat = block.rows.astype(np.float64).reshape(-1)
        marks.append(block.mark)
        seen.append((len(block.rows), flat.sum(), flat @ flat, flat.max(initial=0)))
    if first is None: raise ValueError("the blocks yield nothing: give at least one row.")
    n, total, sq, top = zip(*seen, strict=True)
    shape = sum(n), first.rows.shape[1]
    return Known(tuple(marks), shape, first.rows.dtype, float(sum(total)), float(sum(sq)), float(max(top)))


def again(blocks: Iterable[Block], known: Known) -> Iterator[np.ndarray]:
    "One more pass, compared with the first"
    count = 0
    for count, block in enumerate(blocks, 1):
        if count > len(known.marks) or block.mark != known.marks[count - 1]:
            raise ValueError(f"{block.where}, from row {block.first}: not what it was in the first "
                             "pass. Every pass must yield the same blocks in the same order.")
        yield block.rows
    if count < len(known.marks):
        raise ValueError(f"a later pass ends after {count} of {len(known.marks)} blocks (or parts of them): "
                         "every pass must yield the same blocks.")


def reader(
    source: Callable,   # `source()` is an iterator of `Block`
    known: Known,       # from the first pass
) -> Callable:          # (start, stop) -> (stop - start, f)
    "Rows on request: asked for in order, they are read once a pass; the last ones are held"
    left: Iterator[np.ndarray] = iter(())
    rest, at = np.empty((0, 0)), 0            # read, and not yet given; the row it begins with
    held: tuple = (-1, -1, None)              # what was given last

    def fill(out: np.ndarray) -> np.ndarray:
        "The next rows, copied"
        nonlocal at, rest
        done = 0
        while done < len(out):
            while not len(rest): rest = next(left)
            m = min(len(rest), len(out) - done)
            out[done:done + m], rest = rest[:m], rest[m:]
            done += m
        at += done
        if at == known.shape[0]: next(left, None)   # nothing may follow
        return out

    def rows(start: int, stop: int) -> np.ndarray:
        "Those from start to stop"
        nonlocal at, left, rest, held
        if held[:2] == (start, stop): return held[2]
        held = (-1, -1, None)
        empty = lambda m: np.empty((m, known.shape[1]), known.kind)
        if start == 0 or start != at: at, left, rest = 0, again(source(), known), empty(0)
        while at < start: fill(empty(min(start - at, CHUNK // known.shape[1] + 1)))
        held = start, stop, fill(empty(stop - start))
        return held[2]
    return rows


class Stored:
    "A matrix that is read from its source in order, some rows at a time, as often as they are asked for"
    layout, device = torch.strided, torch.device("cpu")

    def __init__(
        self,
        source: Callable,                  # `source()` is an iterator of `Block`
        known: Known | None = None,        # of them; None: found out by a first pass
        dtype: torch.dtype | None = None,  # of what is given out; None: that of the blocks
    ):
        self.source = source
        self.known = first_pass(source()) if known is None else known
        self.shape = self.known.shape
        self.dtype = dtype or (torch.float32 if self.known.kind == np.float32 else torch.float64)
        self._rows = reader(source, self.known)

    def __getitem__(self, rows: slice) -> Tensor:
        start, stop, _ = rows.indices(self.shape[0])
        return torch.from_numpy(self._rows(start, stop)).to(self.dtype)
    def double(self) -> Stored: return Stored(self.source, self.known, torch.float64)
    def numel(self) -> int: return self.shape[0] * self.shape[1]
    def max(self) -> float: return self.known.top
    def stride(self, dim: int) -> int: return (self.shape[1], 1)[dim]
    @property
    def T(self) -> Turned: return Turned(self)


class Turned:
    "The transpose of a `Stored` matrix"
    layout, device = torch.strided, torch.device("cpu")
    def __init__(self, T: Stored): self.T, self.shape, self.dtype = T, T.shape[::-1], T.dtype
    def stride(self, dim: int) -> int: return (0, 1)[dim]
