"""From rows of the index to batches: read the blocks, decode, lay into preallocated arrays.

Axis letters: B samples, T frames, H rows, W columns, F mel bins, M mel columns.
"""

import math
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from avb.pipeline.clip.codec import EXTENSIONS, decode_video
from avb.pipeline.clip.flac import decode_flac
from avb.pipeline.clip.npy import parse_npy
from avb.pipeline.shards.tar import sample_members
from avb.pipeline.storage.cache import fetched_ahead, the_cache
from avb.pipeline.storage.store import Folder
from avb.pipeline.stream.batch import Batch, Word
from avb.pipeline.stream.columns import Ints
from avb.pipeline.stream.index import SENTENCES, Index

#: Frames of a word sample, as in the corpora of single words.
WORD_FRAMES = 29
_OPEN_FILES = 64
_OPEN_COPIES = 16  # none of them can leave the cache

Members = dict[str, memoryview]
Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


class Job(NamedTuple):
    """One call's work: rows of the index and their epochs; for words, those of each batch.

    Of these, int64 [samples, 2]: which of the rows, and the place of the word in its clip.
    """

    rows: Ints
    epochs: Ints
    words: list[Ints] | None


def first_frame(start_s: float, end_s: float, fps: float) -> int:
    """Where the window of a word begins: `WORD_FRAMES` centred on the frame shown at its middle.

    Frame f is shown from f / fps to (f + 1) / fps, so that the middle is rounded down to a frame;
    the window may begin before the clip and end after it.
    """
    # The small term keeps a middle that falls on a frame's first instant in that frame.
    return int(np.floor((start_s + end_s) / 2 * fps + 1e-6)) - WORD_FRAMES // 2


def frames_between(start_s: float, end_s: float, fps: float) -> tuple[int, int]:
    """First frame whose middle is inside the times, and the one after the last.

    Frame f is shown from f / fps to (f + 1) / fps. A word too short to hold a middle has the
    frame that is shown at its own.
    """
    # The small term keeps a time that falls on a middle, less the rounding of float32, there.
    first, last = (math.ceil(t * fps - 0.5 - 1e-4) for t in (start_s, end_s))
    if first == last:
        first = math.floor((start_s + end_s) / 2 * fps + 1e-4)
        last = first + 1
    return first, last


def classes_of_frames(
    words: list[Word], tokens: list[int], frames: int, silence: int, fps: float
) -> list[int]:
    """The class of each frame by the times of the words; -1 throughout where some have none."""
    classes = [silence] * frames
    for (_, start, end), token in zip(words, tokens, strict=False):
        if start is None or end is None:
            return [-1] * frames
        first, last = frames_between(start, end, fps)
        for frame in range(max(first, 0), min(last, frames)):
            classes[frame] = token
    return classes


class ShardFiles:
    """Reads pieces of shards by name, keeping the last few open; of a store copies in the cache."""

    def __init__(self, folder: Folder, shards: Iterable[dict[str, Any]]) -> None:
        self._folder = folder
        self._known = {shard["name"]: (shard["sha256"], shard["bytes"]) for shard in shards}
        self._open: OrderedDict[str, int] = OrderedDict()

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_open": OrderedDict()}  # descriptors do not travel

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        for descriptor in self._open.values():
            close(descriptor)  # `os` is gone where the interpreter ends

    def read(self, shard: str, offset: int, nbytes: int) -> bytes:
        """`nbytes` from `offset` on of a shard; ValueError: it ends too early."""
        if shard in self._open:
            self._open.move_to_end(shard)
        else:
            try:
                # pread keeps no position, so forked workers may use one descriptor at a time.
                self._open[shard] = self._open_one(shard)
            except FileNotFoundError:
                raise FileNotFoundError(
                    f"{self._folder / shard}.tar: missing, though the manifest lists its clips; "
                    "copy it again or run `avb prep` again"
                ) from None
            if len(self._open) > (_OPEN_FILES if isinstance(self._folder, Path) else _OPEN_COPIES):
                os.close(self._open.popitem(last=False)[1])
        size = os.fstat(self._open[shard]).st_size  # asked first: pread makes room for all it reads
        if offset + nbytes > size:
            raise ValueError(f"ends after {size} bytes, a sample lies beyond")
        return os.pread(self._open[shard], nbytes, offset)

    def fetch(self, shard: str) -> None:
        """See to it that a shard of a store lies in the cache."""
        os.close(self._open_one(shard))

    def _open_one(self, shard: str) -> int:
        name = f"{shard}.tar"
        if isinstance(self._folder, Path):
            return os.open(self._folder / name, os.O_RDONLY)
        return the_cache().open(self._folder, name, *self._known.get(shard, ()))


class Assembler:
    """Makes batches; all state but open files is fixed, so any process may make any batch."""

    def __init__(
        self, index: Index, crops: tuple[str, ...], mel: bool, audio: bool, unit: str = "clip"
    ) -> None:
        self._index = index
        self._unit = unit
        self._with_mel = mel
        self._with_audio = audio
        self._files = ShardFiles(index.folder, index.dataset.get("shards", ()))
        settings, stored_mel = index.dataset["settings"], index.dataset["mel"]
        self._fps = settings["fps"]
        self._sample_rate = settings["sample_rate"]
        self._columns_per_frame = settings["sample_rate"] // (self._fps * stored_mel["hop"])
        self._num_mels = stored_mel["n_mels"]
        self._silence = float(np.log(stored_mel["floor"]))
        self._mel_scale = (stored_mel.get("scale", 1.0), stored_mel.get("offset", 0.0))
        self._sides = {crop: index.dataset["crops"][crop]["stored"] for crop in crops}

    def fetched_ahead(self, jobs: Iterator[Job]) -> Iterator[Job]:
        """The jobs, while the shards of later ones come from the store if they lie in one."""
        if isinstance(self._index.folder, Path):
            return jobs
        shard = self._index.shard

        def wanted(job: Job) -> list[str]:
            return [shard.names[code] for code in np.unique(shard.codes[job.rows])]

        return fetched_ahead(jobs, wanted, self._files.fetch)

    def __call__(self, job: Job) -> list[Batch]:
        """The batches of one job: one of clips, or some of words; errors name the sample."""
        return [self._clips(job)] if job.words is None else self._words(job, job.words)

    def _clips(self, job: Job) -> Batch:
        index, rows, size = self._index, job.rows, len(job.rows)
        lengths = index.num_frames[rows]
        # Of a film without sound, as many columns of silence as its pictures would have.
        silence = lengths * self._columns_per_frame
        columns = np.where(index.no_audio[rows], silence, index.num_mel[rows])
        video = self._empty_video(size, int(lengths.max()))
        mel = np.empty((size, self._num_mels, columns.max()), np.float32)
        sounds = []
        for i, row in enumerate(rows):
            with self._named(row):
                members = self.members(row)
                for crop, frames in video.items():
                    self._decode_crop(members, crop, frames[i, : lengths[i]])
                    frames[i, lengths[i] :] = 0
                if self._with_mel:
                    mel[i] = self._silence
                    if not index.no_audio[row]:
                        mel[i, :, : columns[i]] = self._decode_mel(members, columns[i])
                if self._with_audio:
                    sounds.append(torch.from_numpy(self._sound(members, row)))
        words = [index.words(row) for row in rows]
        label_id = index.label_id[rows]
        labelled = [w[0][1:] if label >= 0 and len(w) == 1 else (None, None)
                    for w, label in zip(words, label_id, strict=True)]  # fmt: skip
        times = [[np.nan if t is None else t for t in pair] for pair in labelled]
        return Batch(
            keys=[index.key(row) for row in rows],
            video={crop: torch.from_numpy(frames) for crop, frames in video.items()},
            mel=torch.from_numpy(mel) if self._with_mel else None,
            lengths=torch.from_numpy(lengths),
            mel_lengths=torch.from_numpy(columns),
            label_id=torch.from_numpy(label_id),
            boundary=torch.tensor(times),
            epoch=torch.from_numpy(job.epochs),
            speakers=[index.speaker[row] for row in rows],
            words=words,
            **self._sentences(rows),
            audio=pad_sequence(sounds, batch_first=True) if self._with_audio else None,
            audio_lengths=torch.tensor([len(s) for s in sounds]) if self._with_audio else None,
        )

    def _sentences(self, rows: Ints) -> dict[str, torch.Tensor]:
        """What only sentences have."""
        if self._unit not in SENTENCES:
            return {}
        index = self._index
        tokens = index.tokens(rows, self._unit)
        found = {"tokens": [torch.tensor(one, dtype=torch.int64) for one in tokens]}
        if self._unit == "sentence":
            words = [index.words(row) for row in rows]
            lengths, silence = index.num_frames[rows].tolist(), len(index.labels)
            found["frames"] = [
                torch.tensor(classes_of_frames(*clip, silence, self._fps))
                for clip in zip(words, tokens, lengths, strict=True)
            ]
        return {name: pad_sequence(lists, True, -1) for name, lists in found.items()}

    def _words(self, job: Job, words: list[Ints]) -> list[Batch]:
        """A batch for each of `words`; each clip is decoded once."""
        columns_per_frame = self._columns_per_frame
        video = [self._empty_video(len(part), WORD_FRAMES) for part in words]
        mel_shape = (self._num_mels, WORD_FRAMES * columns_per_frame)
        mel = [np.full((len(part), *mel_shape), self._silence, np.float32) for part in words]
        firsts = [np.empty(len(part), np.int64) for part in words]
        for i, row in enumerate(job.rows):
            with self._named(row):
                clip_video, clip_mel = self.decode(row)
            for j, part in enumerate(words):
                for at in np.flatnonzero(part[:, 0] == i):
                    start_s, end_s = self._index.word_s[self._index.first_word[row] + part[at, 1]]
                    first = firsts[j][at] = first_frame(start_s, end_s, self._fps)
                    window = np.arange(first, first + WORD_FRAMES)
                    for crop, frames in clip_video.items():
                        np.take(frames, window, axis=0, mode="clip", out=video[j][crop][at])
                    if self._with_mel:
                        _copy_window(clip_mel, first * columns_per_frame, mel[j][at])
        parts = zip(words, firsts, video, mel, strict=True)
        return [self._word_batch(job, *part) for part in parts]

    def _word_batch(
        self, job: Job, dealt: Ints, firsts: Ints, video: dict[str, Pixels], mel: Floats
    ) -> Batch:
        index, size = self._index, len(dealt)
        rows, places = job.rows[dealt[:, 0]], dealt[:, 1]
        words: list[list[Word]] = []
        own = []
        for row, place, first in zip(rows, places, firsts, strict=True):
            shift = float(first) / self._fps
            said = [(w, s, e) if s is None or e is None else (w, s - shift, e - shift)
                    for w, s, e in index.words(row)]  # fmt: skip
            words.append([word for word in said if None not in word])
            own.append(said[place])
        return Batch(
            keys=[f"{index.key(r)}#{place}" for r, place in zip(rows, places, strict=True)],
            video={crop: torch.from_numpy(frames) for crop, frames in video.items()},
            mel=torch.from_numpy(mel) if self._with_mel else None,
            lengths=torch.full((size,), WORD_FRAMES),
            mel_lengths=torch.full((size,), WORD_FRAMES * self._columns_per_frame),
            label_id=torch.tensor([self._index.class_of[word] for word, _, _ in own]),
            boundary=torch.tensor([times for _, *times in own]),
            epoch=torch.from_numpy(job.epochs[dealt[:, 0]]),
            speakers=[index.speaker[row] for row in rows],
            words=words,
        )

    def _empty_video(self, size: int, length: int) -> dict[str, Pixels]:
        shapes = {crop: (size, length, side, side) for crop, side in self._sides.items()}
        return {crop: np.empty(shape, np.uint8) for crop, shape in shapes.items()}

    def decode(self, row: int) -> tuple[dict[str, Pixels], Floats]:
        """One whole clip: uint8 [T, H, W] by crop and float32 [F, M], M 0 without mels."""
        members, index = self.members(row), self._index
        video = {
            crop: frames[0] for crop, frames in self._empty_video(1, index.num_frames[row]).items()
        }
        for crop, frames in video.items():
            self._decode_crop(members, crop, frames)
        if not self._with_mel or index.no_audio[row]:
            return video, np.empty((self._num_mels, 0), np.float32)
        return video, self._decode_mel(members, index.num_mel[row])

    def members(self, row: int) -> Members:
        """What is stored of one clip, by extension (`lips.mp4`, `mel.npy`, ...)."""
        index = self._index
        shard = index.shard[row]
        assert shard is not None
        block = self._files.read(shard, int(index.offset[row]), int(index.nbytes[row]))
        return sample_members(block, index.key(row))

    def _decode_crop(self, members: Members, crop: str, out: Pixels) -> Pixels:
        for extension in EXTENSIONS.values():
            if (data := members.get(f"{crop}.{extension}")) is not None:
                return decode_video(data, extension, out)
        raise ValueError(f"no member {crop}.mp4, .h264 or .jpg, found {', '.join(members)}")

    def _decode_mel(self, members: Members, columns: int) -> Floats:
        if "mel.npy" not in members:
            raise ValueError(f"no member mel.npy, found {', '.join(members)}")
        stored = parse_npy(members["mel.npy"])
        if stored.shape != (self._num_mels, columns):
            raise ValueError(f"mel is {stored.shape}, expected {(self._num_mels, int(columns))}")
        if stored.dtype == np.uint8:
            scale, offset = self._mel_scale
            return stored * np.float32(scale) + np.float32(offset)
        return stored.astype(np.float32)

    def _sound(self, members: Members, row: int) -> Floats:
        samples = int(self._index.num_frames[row]) * self._sample_rate // self._fps
        if self._index.no_audio[row]:
            return np.zeros(samples, np.float32)
        if "flac" not in members:
            raise ValueError("no sound is stored; prepare with --keep-audio")
        return decode_flac(members["flac"], samples)

    @contextmanager
    def _named(self, row: int) -> Iterator[None]:
        """Name the clip in what goes wrong with it."""
        try:
            yield
        except ValueError as error:
            index = self._index
            raise ValueError(
                f"{index.folder / str(index.shard[row])}.tar: clip {index.key(row)}: {error}; "
                f"find every fault with `avb verify {index.folder}`"
            ) from error


def _copy_window(mel_FM: Floats, first: int, out_FM: Floats) -> None:
    """Copy what lies inside the clip of the columns from `first` on; the rest of `out` stays."""
    start, stop = max(first, 0), min(first + out_FM.shape[1], mel_FM.shape[1])
    if start < stop:
        out_FM[:, start - first : stop - first] = mel_FM[:, start:stop]
