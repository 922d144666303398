"""The reader: an endless, exactly reproducible stream of batches from a folder of shards.

The order of all clips is a pure function of (index, seed, epoch); epochs follow each other without
a seam, and global batch b is clips b*G to (b+1)*G of that endless order. A process takes its
contiguous part of every global batch, workers only decode what they are handed. So content and
order are the same for any number of processes and workers, nothing is dropped or repeated, and
the number of batches done is all it takes to resume.

    stream = Stream(load_index("shards/lrw"), batch_size=32, seed=1)
    for batch in stream:  # endless; stream.position goes into the checkpoint
        batch.video["lips"], batch.mel, batch.label_id

Reading needs PyAV (or OpenCV), pyarrow and torch, not webdataset.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator, Sequence

import numpy as np

from avb.pipeline.errors import StorageError
from avb.pipeline.machine import cores
from avb.pipeline.stream.assemble import Assembler, Job
from avb.pipeline.stream.batch import Batch
from avb.pipeline.stream.deal import Deal
from avb.pipeline.stream.index import Index, Ints
from avb.pipeline.stream.order import EndlessOrder, share


def default_workers(processes: int = 1) -> int:
    """Decoding workers for each of `processes` readers on this machine.

    None below four cores: on two cores, workers were measured to be slower than none, because
    they hand every batch over to the process that would otherwise have decoded it.
    """
    share = cores() // processes
    return share - 1 if share >= 4 else 0


class Stream:
    """Batches of clips or of words; endless, or one pass that sees each sample exactly once.

    Iterating starts at `position` and moves it on, so that a stream can be left and taken up
    again. A pass (`once`) goes in the order of the shards, starts anew each time and may hand a
    process fewer batches than another; its last batch may be smaller, nothing is padded.

    Attributes:
        rows: the rows of the index that are read.
        num_samples: samples in an epoch (all processes together).
        position: batches handed out since the start of the stream.
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
        """Check the request; nothing is read yet.

        Args:
            index: from `load_index`.
            batch_size: samples in a global batch, over all processes.
            rows: what to read, from `Index.select`; None: everything.
            crops: names of the pictures wanted, `lips` and `face`; none for sound alone.
            mel: whether mels are wanted.
            audio: whether the stored sound is wanted (whole clips only).
            unit: `clip`, or `word`: 29 frames centred on each word that has times, of the classes
                of `Index.of_unit`. Then a block of clips is decoded once and dealt out as some
                batches; of GRID, `batch_size` sentences as six, each with one word of every one.
            once: one pass instead of an endless shuffled stream.
            seed: decides the order.
            buffer: clips that are shuffled together across shards.
            rank: number of this process.
            world: number of processes.
            workers: processes that decode; 0: this one does; None: `default_workers`.
            pin_memory: whether batches lie in page-locked memory.
            position: where to start, from an earlier stream with the same settings.

        Raises:
            ValueError: the request cannot be met; one line says why.
        """
        rows = np.arange(len(index)) if rows is None else np.asarray(rows, np.int64)
        index = index.of_unit(unit)
        if unit == "word":
            rows = index.timed_sentences(rows)
        _check(index, rows, tuple(crops), unit, audio, batch_size, rank, world)
        self._deal = None
        if unit == "word":
            self._deal = Deal(*index.timed_words(rows), batch_size, seed)
        self._batch_size = batch_size
        self._once = once
        self._seed = seed
        self._rank, self._world = rank, world
        self._workers = default_workers() if workers is None else workers
        self._pin_memory = pin_memory
        self._assemble = Assembler(index, tuple(crops), mel, audio)
        self._order = EndlessOrder(index.shard.codes[rows], seed, buffer)
        self.rows = rows
        self.num_samples = self._deal.num_words if self._deal else len(rows)
        self.position = position

    def __iter__(self) -> Iterator[Batch]:
        if self._once:
            self.position = 0
        jobs = self._jobs() if self._deal is None else self._word_jobs(self._deal)
        own = share(self._batch_size, self._rank, self._world)
        held: list[Batch] = []  # words of one batch may come from two blocks of clips
        for batches in self._run(self._assemble.fetched_ahead(jobs)):
            if isinstance(batches, Exception):
                raise batches
            for batch in batches:
                held.append(batch)
                if self._once or sum(map(len, held)) == own.stop - own.start:
                    self.position += 1
                    yield self._whole(held)
                    held = []

    def _whole(self, parts: list[Batch]) -> Batch:
        batch = Batch.joined(parts)
        return batch.pin_memory() if self._pin_memory and len(parts) > 1 else batch

    def _jobs(self) -> Iterator[Job]:
        """What this process has to decode, batch after batch."""
        for clips, epochs in self._blocks(self.position, self._batch_size):
            part = share(len(clips), self._rank, self._world)
            if clips[part].size:  # there may be fewer clips left in a pass than processes
                yield Job(self.rows[clips[part]], epochs[part], None)

    def _word_jobs(self, deal: Deal) -> Iterator[Job]:
        """What this process has to decode, block after block of the clips that are dealt."""
        block, begun = (0, 0) if self._once else deal.seek(self.position, self._order)
        wanted = self.position * self._batch_size - begun  # words before were handed out
        for clips, epochs in self._blocks(block, deal.block):
            words = deal.words(clips, None if self._once else epochs)
            parts = list(self._parts(deal, words, begun, wanted, len(clips)))
            begun, wanted = begun + len(words), wanted - len(words)
            if parts:
                used, of = np.unique(np.concatenate(parts)[:, 0], return_inverse=True)
                ends = np.cumsum([len(part) for part in parts])
                for part, own in zip(parts, np.split(of.reshape(-1), ends[:-1]), strict=True):
                    part[:, 0] = own
                yield Job(self.rows[clips[used]], epochs[used], parts)

    def _parts(
        self, deal: Deal, words: Ints, begun: int, wanted: int, num_clips: int
    ) -> Iterator[Ints]:
        """Of each batch of a block, the words that are this process's and not handed out yet."""
        rank, world = self._rank, self._world
        if self._once:  # a block ends with its batches; the last, of fewer clips, has smaller ones
            size = self._batch_size if num_clips == deal.block else min(num_clips, self._batch_size)
            for start in range(0, len(words), size):
                part = words[start : start + size]
                if len(own := part[share(len(part), rank, world)]):
                    yield own.copy()
            return
        own_share = share(self._batch_size, rank, world)
        for start, stop, batch in deal.cuts(begun, len(words)):
            low, high = (
                max(start, batch + own_share.start, wanted),
                min(stop, batch + own_share.stop),
            )
            if low < high:
                yield words[low:high].copy()

    def _blocks(self, block: int, size: int) -> Iterator[tuple[Ints, Ints]]:
        """Clips and their epochs, `size` at a time, from a block on."""
        num_clips = len(self.rows)
        if self._once:
            for start in range(block * size, num_clips, size):
                clips = np.arange(start, min(start + size, num_clips))
                yield clips, np.zeros_like(clips)
            return
        for start in itertools.count(block * size, size):
            yield self._order.take(start, start + size)

    def _run(self, jobs: Iterator[Job]) -> Iterator[list[Batch] | Exception]:
        """The jobs' batches in the jobs' order."""
        from torch.utils.data import DataLoader

        if not self._workers and not self._pin_memory:
            return map(self._assemble, jobs)
        return iter(
            DataLoader(
                _Jobs(self._assemble),  # type: ignore[arg-type]
                sampler=jobs,  # type: ignore[arg-type]
                batch_size=None,
                num_workers=self._workers,
                collate_fn=_as_is,
                pin_memory=self._pin_memory,
                worker_init_fn=_leave_signals,
            )
        )


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


def _leave_signals(worker: int) -> None:
    """A terminal or cluster sends signals to every process; who reads decides what they mean."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _check(
    index: Index,
    rows: Ints,
    crops: tuple[str, ...],
    unit: str,
    audio: bool,
    batch_size: int,
    rank: int,
    world: int,
) -> None:
    stored = index.dataset["crops"]
    absent = [crop for crop in crops if crop not in stored]
    if absent:
        raise ValueError(
            f"{index.folder}: holds no {' or '.join(absent)} crop, but {', '.join(stored)}; "
            "prepare with --crop, or ask for another"
        )
    if unit not in ("clip", "word"):
        raise ValueError(f"unit {unit!r} is unknown; choose clip or word")
    if unit == "word" and audio:
        raise ValueError("unit word has mels but no sound; read whole clips for it")
    if not len(rows):
        raise ValueError(f"{index.folder}: no clip is selected")
    if not 0 <= rank < world <= batch_size:
        raise ValueError(
            f"rank {rank} of {world} processes cannot share batches of {batch_size}; "
            "a batch needs a clip for each process"
        )
