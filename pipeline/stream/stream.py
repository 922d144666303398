"""The reader: an endless, exactly reproducible stream of batches from a folder of shards.

The order of all clips is a pure function of (index, seed, epoch); epochs follow each other without
a seam, and global batch b is clips b*G to (b+1)*G of that endless order. A process takes its
contiguous part of every global batch, workers only decode what they are handed. So content and
order are the same for any number of processes and workers, nothing is dropped or repeated, and
the number of batches done is all it takes to resume.

    stream = Stream(load_index("shards/lrw"), batch_size=32, seed=1)
    for batch in stream:  # endless; stream.position goes into the checkpoint
        batch.video["lips"], batch.mel, batch.label_id

Reading needs PyAV, pyarrow and torch, not webdataset.
"""

import itertools
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.queues import Queue
from typing import Any

import numpy as np

from avb.pipeline.errors import RunError, StorageError
from avb.pipeline.machine import cores
from avb.pipeline.stream.assemble import Assembler, Job
from avb.pipeline.stream.batch import Batch
from avb.pipeline.stream.columns import Ints
from avb.pipeline.stream.index import UNITS, Index
from avb.pipeline.stream.order import EndlessOrder, WordOrder, share


def default_workers() -> int:
    """Decoding workers of a reader, its share where torchrun starts several on this machine.

    None below four cores: on two cores, workers were measured to be slower than none, because
    they hand every batch over to the process that would otherwise have decoded it.
    """
    share = cores() // int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    return share - 1 if share >= 4 else 0


class Stream:
    """Batches of clips or of words; endless, or one pass that sees each sample exactly once.

    Iterating starts at `position`, the batches handed out since the start, and moves it on, so that
    a stream can be left and taken up again. A pass (`once`) goes in the order of the shards, starts
    anew each time and may hand a process fewer batches than another; its last batch may be smaller,
    nothing is padded. `num_samples` are those of an epoch, all processes together.
    """

    def __init__(
        self,
        index: Index,
        *,
        batch_size: int,
        rows: Ints | None = None,
        crops: Sequence[str] = ("lips",),
        mel: bool = True,
        audio: bool = False,
        unit: str = "clip",
        once: bool = False,
        seed: int = 0,
        buffer: int = 2048,
        rank: int = 0,
        world: int = 1,
        workers: int | None = None,
        pin_memory: bool = False,
        position: int = 0,
    ) -> None:
        """Check the request (else ValueError); nothing is read yet.

        Args:
            batch_size: samples in a global batch, over all processes.
            rows: what to read, from `Index.select`; None: everything.
            crops: names of the pictures wanted, `lips` and `face`; none for sound alone.
            unit: `clip`; `sentence` or `characters`, clips with `tokens`; or `word`: 29 frames
                centred on each word that has times, of the classes of `Index.of_unit`. Then a block
                of clips is decoded once and dealt out as some batches; of GRID, `batch_size`
                sentences as six, each with one word of every one.
            once: one pass instead of an endless shuffled stream.
            buffer: clips that are shuffled together across shards.
            rank: number of this process.
            world: how many there are.
            workers: processes that decode; 0: this one does; None: `default_workers`.
            position: where to start, from an earlier stream with the same settings.
        """
        rows = np.arange(len(index)) if rows is None else np.asarray(rows, np.int64)
        index = index.of_unit(unit)
        if unit == "word":
            rows = index.timed_sentences(rows)
        _check(index, rows, crops, unit, audio, batch_size, rank, world)
        self._words: WordOrder | None = None
        if unit == "word":
            self._words = WordOrder(*index.timed_words(rows), batch_size, seed)
        self._batch_size = batch_size
        self._once = once
        self._rank, self._world = rank, world
        self._workers = default_workers() if workers is None else workers
        self._pin_memory = pin_memory
        self._assemble = Assembler(index, tuple(crops), mel, audio, unit)
        self._order = EndlessOrder(index.shard.codes[rows], seed, buffer)
        self.rows = rows
        self.num_samples = self._words.num_words if self._words else len(rows)
        self.position = position

    def __iter__(self) -> Iterator[Batch]:
        if self._once:
            self.position = 0
        jobs = self._clip_jobs() if self._words is None else self._word_jobs(self._words)
        own = share(self._batch_size, self._rank, self._world)
        held: list[Batch] = []  # words of one batch may come from two blocks of clips
        for batches in self._run(self._assemble.fetched_ahead(jobs)):
            if isinstance(batches, Exception):
                raise batches
            for batch in batches:
                held.append(batch)
                if self._once or sum(map(len, held)) == own.stop - own.start:
                    self.position += 1
                    whole = Batch.joined(held)
                    yield whole.pin_memory() if self._pin_memory and len(held) > 1 else whole
                    held = []

    def _clip_jobs(self) -> Iterator[Job]:
        """What this process has to decode, batch after batch."""
        for clips, epochs in self._blocks(self.position, self._batch_size):
            part = share(len(clips), self._rank, self._world)
            if clips[part].size:  # there may be fewer clips left in a pass than processes
                yield Job(self.rows[clips[part]], epochs[part], None)

    def _word_jobs(self, order: WordOrder) -> Iterator[Job]:
        """What this process has to decode, block after block of clips."""
        block, begun = (0, 0) if self._once else order.seek(self.position, self._order)
        done = self.position * self._batch_size - begun  # words of the block handed out before
        for clips, epochs in self._blocks(block, order.block):
            words = order.words(clips, None if self._once else epochs)
            size, offset = self._batch_size, begun % self._batch_size
            if self._once:  # a block ends with its batches; the last, of fewer clips, has smaller
                size, offset = size if len(clips) == order.block else min(len(clips), size), 0
            parts = []
            for start in range(-offset, len(words), size):
                whole = min(size, len(words) - start) if self._once else size
                own = share(whole, self._rank, self._world)
                low, high = max(start + own.start, done, 0), start + own.stop
                if len(part := words[low : max(low, high)]):
                    parts.append(part.copy())
            begun, done = begun + len(words), done - len(words)
            if parts:
                used = np.unique(np.concatenate(parts)[:, 0])
                for part in parts:
                    part[:, 0] = np.searchsorted(used, part[:, 0])
                yield Job(self.rows[clips[used]], epochs[used], parts)

    def _blocks(self, block: int, size: int) -> Iterator[tuple[Ints, Ints]]:
        """Clips and their epochs, `size` at a time, from a block on."""
        for start in itertools.count(block * size, size):
            if not self._once:
                yield self._order.take(start, start + size)
            elif start < len(self.rows):
                clips = np.arange(start, min(start + size, len(self.rows)))
                yield clips, np.zeros_like(clips)
            else:
                return

    def _run(self, jobs: Iterator[Job]) -> Iterator[list[Batch] | Exception]:
        """The jobs' batches in the jobs' order."""
        from torch.utils.data import DataLoader

        if not self._workers and not self._pin_memory:
            return map(self._assemble, jobs)
        # Forked, they share the index, which is large; Python 3.14 would send it to each.
        forked = self._workers and sys.platform == "linux"
        loader: Any = iter(
            DataLoader(
                _Jobs(self._assemble),  # type: ignore[arg-type]
                sampler=jobs,  # type: ignore[arg-type]
                batch_size=None,
                num_workers=self._workers,
                collate_fn=_as_is,
                pin_memory=self._pin_memory,
                worker_init_fn=_settle,
                multiprocessing_context="fork" if forked else None,
            )
        )
        for worker in getattr(loader, "_workers", ()):
            # They leave SIGTERM alone, and one that is stuck, as behind the lock of another that
            # was killed, would be waited for without end.
            worker._popen.terminate = worker._popen.kill
        return loader


class _Jobs:
    """A map-style data set whose keys are jobs: the loader's main process hands them out."""

    def __init__(self, assemble: Assembler) -> None:
        self._assemble = assemble

    def __getitem__(self, job: Job) -> list[Batch] | Exception:
        try:
            return self._assemble(job)
        except (ValueError, OSError, StorageError) as error:
            # Raised in a worker, the loader would bury its one line in a printed traceback.
            return error


def _as_is(batches: list[Batch] | Exception) -> list[Batch] | Exception:
    return batches


def _settle(worker: int) -> None:
    """A terminal or cluster sends signals to every process; who reads decides what they mean."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    Queue._on_queue_feeder_error = _tell_reader  # type: ignore[attr-defined]


def _tell_reader(results: Any, error: Exception, result: tuple[int, object]) -> None:
    """Send why a job's batches cannot be sent; Python prints it, and they are waited for."""
    if "shared memory" in str(error):  # of a container it is 64 MB by default
        more = "give it more (docker run --shm-size=8g), or leave the process fewer cores (taskset)"
        error = RunError(f"/dev/shm: no room for the batches of the processes that decode; {more}")
    with suppress(ValueError):  # closed: nobody waits for them any more
        results.put((result[0], error))


def _check(
    index: Index, rows: Ints, crops: Sequence[str], unit: str, audio: bool,
    batch_size: int, rank: int, world: int,
) -> None:  # fmt: skip
    stored = index.dataset["crops"]
    absent = [crop for crop in crops if crop not in stored]
    if absent:
        raise ValueError(
            f"{index.folder}: holds no {' or '.join(absent)} crop, but {', '.join(stored)}; "
            "prepare with --crop, or ask for another"
        )
    if unit not in UNITS:
        raise ValueError(f"unit {unit!r} is unknown; choose {', '.join(UNITS)}")
    if unit == "word" and audio:
        raise ValueError("unit word has mels but no sound; read whole clips for it")
    if not len(rows):
        raise ValueError(f"{index.folder}: no clip is selected")
    if not 0 <= rank < world <= batch_size:
        raise ValueError(
            f"rank {rank} of {world} processes cannot share batches of {batch_size}; "
            "a batch needs a clip for each process"
        )
