"""LRW-1000 (CAS-VSR-W1k): 1,000 Mandarin words of television as mouth pictures and wav files.

Expected: `{images,lip_images}[/...]/<32 hex>/<n>.jpg` (one folder a video segment with many
words, 25 fps, numbered from 1), `audio[/...]/<id>.wav` (one a word, 0.2 s wider on both sides),
and index files `trn_1000.txt val_1000.txt tst_1000.txt` (`hash,word,pinyin,start,end`, some with
the audio id after the hash) and `all_audio_video.txt` (`hash,id,word,pinyin,start,end`).
718,018 rows in all. The class is the pinyin. Times are hundredths of a second, so all arithmetic
is in whole hundredths: `int(t * 25)` is one frame early for 144 of the first 3,000 frame times.

Known defects and how they end: numbers printed differently in the two index files (joined on
hundredths), rows that end where they start (`zero_length`), repeated rows (`duplicate`), pictures
missing in the middle (up to a fifth filled and flagged), missing folders and wavs (refused).
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from avb.pipeline.clip.image_folder import read_pictures
from avb.pipeline.clip.media import Media
from avb.pipeline.clip.pyav import read_sound
from avb.pipeline.clip.status import Refused
from avb.pipeline.config import Corpus
from avb.pipeline.corpora.clip import Clip, Listing, Word
from avb.pipeline.corpora.leftover import LITTER, with_leftovers
from avb.pipeline.errors import UsageError
from avb.pipeline.settings import Settings

INDEX = {"train": "trn_1000.txt", "val": "val_1000.txt", "test": "tst_1000.txt"}
JOIN = "all_audio_video.txt"
INDEX_FOLDERS = ("info", "labels", "filelist", ".")
IMAGE_FOLDERS = ("lip_images/lip_images", "lip_images", "images/images", "images")
AUDIO_FOLDERS = ("audio/LRW1000_Public/audio", "audio/audio", "audio")
MARGIN = 20  # hundredths of a second that picture and sound reach beyond the word


def discover(root: Path, corpus: Corpus) -> Listing:
    """Every row of the three index files (else UsageError); pictures and wavs are not looked at."""
    base, index = _find_base(root)
    images, audio = _first(base, IMAGE_FOLDERS), _first(base, AUDIO_FOLDERS)
    notices = []
    if images is None:
        notices.append(f"no picture folder; looked for {', '.join(IMAGE_FOLDERS)} in {base.name}")
    if audio is None:
        notices.append(f"no sound folder; looked for {', '.join(AUDIO_FOLDERS)} in {base.name}")
    missing = [name for name in INDEX.values() if not (index / name).is_file()]
    if missing:
        notices.append(f"index files missing: {', '.join(missing)}")
    ids = _audio_ids(index / JOIN)
    if not ids:
        notices.append(f"{JOIN} is missing or empty: rows without an audio id have no sound")
    labels: list[str] = []
    places = images or base / "images", audio or base / "audio", index
    pictures, sound, where = (path.relative_to(root).as_posix() for path in places)
    layout = f"pictures in {pictures}, sound in {sound}, index in {where}"
    clips = _with_folders_left(_clips(index, pictures, sound, ids, labels), images, notices)
    # Too many files lie in the two folders to look at them.
    clips = with_leftovers(clips, root, notices, skip=(pictures, sound))
    return Listing(root, layout, clips, labels, notices)


def _with_folders_left(
    clips: Iterator[Clip], images: Path | None, notices: list[str]
) -> Iterator[Clip]:
    """The clips, and after the last one a notice of folders of pictures that no row names."""
    named: set[str] = set()
    for clip in clips:
        named.add(clip.source.rpartition("/")[2])
        yield clip
    there = [e.name for e in os.scandir(images) if e.is_dir()] if images else []
    left = sorted(name for name in there if name not in named and not name.startswith("."))
    if left:
        notices.append(f"{len(left):,} folders of pictures without a row, such as {left[0]}")


def _find_base(root: Path) -> tuple[Path, Path]:
    """The folder that holds pictures and sound, and the one that holds the index files."""
    for base in (root, *_children(root)):
        for name in INDEX_FOLDERS:
            index = base / name
            if any((index / file).is_file() for file in INDEX.values()):
                # Unpacked by hand, the index files may lie one level above the pictures.
                holders = [base, *_children(base)]
                here = next((b for b in holders if _first(b, IMAGE_FOLDERS)), base)
                return here, Path(os.path.normpath(index))
    raise UsageError(
        f"{root}: no LRW-1000 found; looked for {', '.join(INDEX.values())} in"
        f" {', '.join(INDEX_FOLDERS)} of it and of its folders (give --root)"
    )


def _children(folder: Path) -> list[Path]:
    skip = {"images", "lip_images", "audio", *INDEX_FOLDERS, *LITTER}  # millions of files lie there
    if not folder.is_dir():
        return []
    return sorted(Path(e.path) for e in os.scandir(folder) if e.is_dir() and e.name not in skip)


def _first(base: Path, names: tuple[str, ...]) -> Path | None:
    return next((base / name for name in names if (base / name).is_dir()), None)


def _lines(path: Path) -> Iterator[tuple[str, bool]]:
    """Lines of an index file as UTF-8 (a BOM is skipped), and whether one had to be GB18030."""
    with path.open("rb") as file:
        for number, raw in enumerate(file):
            if number == 0:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            try:
                yield raw.decode("utf-8").strip(), False
            except UnicodeDecodeError:
                yield raw.decode("gb18030", "replace").strip(), True


def _times(folder: str, start: str, end: str) -> tuple[str, int, int]:
    """A row's name, `<hash>_<start>_<end>`, and its times, all in hundredths of a second.

    Equal however an index file prints its numbers.
    """
    first, last = round(float(start) * 100), round(float(end) * 100)
    return f"{folder}_{first}_{last}", first, last


def _audio_ids(path: Path) -> dict[str, str]:
    """Audio id by row name and pinyin."""
    ids: dict[str, str] = {}
    for line, _ in _lines(path) if path.is_file() else ():
        parts = line.split(",")
        if len(parts) == 6:
            folder, audio, _, pinyin, start, end = parts
            with suppress(ValueError, OverflowError):  # a heading, or no times: no row is called so
                ids[f"{_times(folder, start, end)[0]} {pinyin}"] = audio
    return ids


def _clips(
    index: Path, images: str, audio: str, ids: dict[str, str], labels: list[str]
) -> Iterator[Clip]:
    pinyins: set[str] = set()
    for split, name in INDEX.items():
        if not (index / name).is_file():
            continue
        for number, (line, odd) in enumerate(_lines(index / name), 1):
            if line:
                clip = _row(line, f"{name}:{number}", split, images, audio, ids)
                if odd:
                    clip.flags.append("encoding")
                if clip.label:
                    pinyins.add(clip.label)
                yield clip
    labels.extend(sorted(pinyins))


def _row(line: str, where: str, split: str, images: str, audio: str, ids: dict[str, str]) -> Clip:
    parts = line.split(",")
    try:
        folder, pinyin = parts[0], parts[-3]
        name, start, end = _times(folder, parts[-2], parts[-1])
        if len(parts) not in (5, 6):
            raise ValueError
    except (ValueError, IndexError, OverflowError):
        return Clip(
            name=where.replace(".", "_").replace(":", "_"),
            group=split,
            split=split,
            source=where,
            status="bad_name",
            error=f"{where}: expected hash,[id,]word,pinyin,start,end; found {line[:80]!r}",
        )
    sound = parts[1] if len(parts) == 6 else ids.get(f"{name} {pinyin}")
    clip = Clip(
        name=name,
        group=split,
        split=split,
        label=pinyin,
        source=f"{images}/{folder}",
        audio=f"{audio}/{sound}.wav" if sound else None,
        start=start / 100,
        end=end / 100,
    )
    if end <= start:
        clip.status = "zero_length"
        clip.error = f"{where}: the word starts at {start / 100} s and ends at {end / 100} s"
    elif sound is None:
        clip.status = "missing_audio"
        clip.error = (
            f"{where}: no audio id for {folder} {pinyin} {start / 100}-{end / 100} in {JOIN}"
        )
    return clip


def frame_span(start: int, end: int) -> tuple[int, int]:
    """First and last picture, both included and one-based, of a word in hundredths of a second."""
    return max(0, start - MARGIN) // 4 + 1, (end + MARGIN) // 4 + 1


def load(root: Path, clip: Clip, settings: Settings) -> Media:
    """Pictures from 0.2 s before the word to 0.2 s after it, and the wav at its own place."""
    start, end, first, last, zero = _span(clip)
    if last - first >= settings.max_seconds * settings.fps:
        raise Refused("long", f"{clip.source}: a word of {(end - start) / 100:g} s")
    folder = root / clip.source
    media = read_pictures([folder / f"{n}.jpg" for n in range(first, last + 1)])
    if start < MARGIN:
        media.flags.add("short_margin")
    try:
        media.sound, media.rate = read_sound(root / (clip.audio or "no audio id"))
    except Refused:
        if settings.audio == "required":
            raise
        media.flags.add("no_audio")
        return media
    sound_start = start - MARGIN
    if start < MARGIN:
        # Whether the wav was cut at the start of the video or zero-filled is not documented:
        # its length tells.
        full, cut = end - start + 2 * MARGIN, end + MARGIN
        length = len(media.sound) / media.rate * 100
        sound_start = start - MARGIN if abs(length - full) < abs(length - cut) else 0
    media.sound_start_s = (sound_start - zero) / 100
    return media


def words(
    root: Path, clip: Clip, num_frames: int, settings: Settings, flags: set[str]
) -> list[Word]:
    """The word with its time."""
    start, end, *_, zero = _span(clip)
    return [(clip.label or "", round((start - zero) / 100, 2), round((end - zero) / 100, 2))]


def _span(clip: Clip) -> tuple[int, int, int, int, int]:
    """Start and end of a word, its first and last picture, and when the first begins.

    Times are in hundredths of a second.
    """
    start, end = round((clip.start or 0) * 100), round((clip.end or 0) * 100)
    first, last = frame_span(start, end)
    return start, end, first, last, (first - 1) * 4
