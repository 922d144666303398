"""Everything that is wrong somewhere in the real corpora, on request beside the good clips.

Each case starts from a good clip and breaks one thing, so that what a reader makes of it can be
put down to that thing. The functions return (path or index row, case) for every odd one.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np

from avb.tools.synth import face, media, raw
from avb.tools.synth.media import FPS
from avb.tools.synth.raw import Clip
from avb.tools.synth.raw_lrw1000 import (
    MANDARIN,
    MARGIN,
    Row,
    Tree,
    folder_name,
    save_segment,
    segment_clip,
)

Odd = list[tuple[str, str]]
_TEXT = b"<html><body>404 Not Found</body></html>\n"
_GRID_CASES = (
    "frames_74", "frames_70", "grey_start", "no_align", "crlf_align", "short_pause", "other_words",
    "no_audio", "damaged", "large_twin", "empty", "text", "truncated", "no_face",
    "wrong_talker_align",
)  # fmt: skip
_LRW_CASES = (
    "no_text", "duration_zero", "duration_too_long", "duration_without_unit", "frames_28",
    "truncated", "truncated_late", "empty", "text", "no_audio",
)  # fmt: skip


def _cut_file(path: Path, share: float) -> None:
    """Keeps the first part of a file, as an interrupted download does."""
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


def _break_grid(case: str, video: Path, clip: Clip) -> None:
    """Breaks one thing of a good clip and its alignment."""
    align = video.parent.parent / "align" / f"{video.stem}.align"
    match case:
        case "frames_74" | "frames_70":
            media.write_mpg(video, clip.frames[: int(case[-2:])], clip.samples)
        case "grey_start":
            grey = [np.full_like(clip.frames[0], 128)] * 12
            media.write_mpg(video, grey + clip.frames[12:], clip.samples)
        case "no_align":
            align.unlink()
        case "crlf_align":
            align.write_text(raw.align_text(clip.words, "\r\n"), newline="")
        case "short_pause":
            lines = align.read_text().splitlines()
            start, end, word = lines[3].split()
            middle = (int(start) + int(end)) // 2
            lines[3:4] = [f"{start} {middle} {word}", f"{middle} {end} sp"]
            align.write_text("\n".join(lines) + "\n", newline="")
        case "other_words":
            wrong = {"bin": "lay", "lay": "place", "place": "set", "set": "bin"}
            words = [(wrong.get(word, word), start, end) for word, start, end in clip.words]
            align.write_text(raw.align_text(words), newline="")
        case "no_audio":
            media.write_mpg(video, clip.frames, None)
        case "damaged":
            _damage(video)
        case "large_twin":
            frames = [cv2.resize(f, (720, 576), interpolation=cv2.INTER_CUBIC) for f in clip.frames]
            media.write_mpg(video.parent / "mpg_6000" / video.name, frames, clip.samples)
        case "empty" | "text":
            video.write_bytes(_TEXT if case == "text" else b"")
        case "truncated":
            _cut_file(video, 0.5)
        case "no_face":
            wall = face.backdrop(face.Identity.from_seed(1), raw.GRID_SIZE)
            media.write_mpg(video, [wall] * raw.GRID_FRAMES, clip.samples)
        case "wrong_talker_align":
            other = video.parents[2] / "s1/align" / align.name
            other.parent.mkdir(parents=True, exist_ok=True)
            align.rename(other)


def _damage(video: Path) -> None:
    """Overwrites part of one predicted picture in the middle, which the decoder then conceals."""
    with av.open(str(video)) as container:
        packets = [p for p in container.demux(video=0) if p.size and p.pos is not None]
    packet = next(p for p in packets[30:] if not p.is_keyframe and p.size > 2000)
    data = bytearray(video.read_bytes())
    place = data.index(bytes(packet)[300:316], packet.pos)
    # No start code (0 0 1) can arise, so the picture stays one picture.
    data[place : place + 64] = bytes([0xA5, 0x5A, 0xC3, 0x3C] * 16)
    video.write_bytes(bytes(data))


def odd_grid(out: Path, seed: int) -> Odd:
    """Adds one clip for each case to a GRID tree, the litter of its archives and an empty s21."""
    taken = {path.stem for path in out.rglob("*.mpg")}
    names = (name for name in raw.grid_names(seed + 77) if name not in taken)
    listed: Odd = []
    for index, case in enumerate(_GRID_CASES):
        name, talker = next(names), raw.GRID_TALKERS[1 + index % (len(raw.GRID_TALKERS) - 1)]
        clip = raw.grid_clip(talker, name, seed)
        video = raw.save_grid(out, talker, name, clip)
        _break_grid(case, video, clip)
        path = video.parent / "mpg_6000" / video.name if case == "large_twin" else video
        listed.append((path.relative_to(out).as_posix(), case))
    litter = out / "__MACOSX/s1/video/._bbaf2n.mpg"
    litter.parent.mkdir(parents=True)
    litter.write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ")
    (out / "s21/video").mkdir(parents=True)
    return [*listed, (litter.relative_to(out).as_posix(), "macosx"), ("s21", "empty_talker")]


def _break_lrw(case: str, video: Path, clip: Clip) -> None:
    """Breaks one thing of a good clip and its metadata."""
    text = video.with_suffix(".txt")
    match case:
        case "no_text":
            text.unlink()
        case "duration_zero" | "duration_too_long" | "duration_without_unit":
            told = {"zero": "0 seconds", "too_long": "9.9 seconds", "without_unit": "0.41"}
            kept = [row for row in text.read_text().splitlines() if not row.startswith("Duration")]
            line = f"Duration: {told[case.removeprefix('duration_')]}\n"
            text.write_text("\n".join([*kept, line]), newline="")
        case "frames_28":
            media.write_mp4(video, clip.frames[:28], clip.samples)
        case "truncated":
            _cut_file(video, 0.6)  # the index is at the end: unreadable
        case "truncated_late":
            media.write_mp4(video, clip.frames, clip.samples, index_first=True)
            _cut_file(video, 0.75)
        case "empty" | "text":
            video.write_bytes(_TEXT if case == "text" else b"")
        case "no_audio":
            media.write_mp4(video, clip.frames, None)


def odd_lrw(out: Path, seed: int) -> Odd:
    """Adds one training clip for each case to an LRW tree, and litter that is no word."""
    listed: Odd = []
    for index, case in enumerate(_LRW_CASES):
        word = raw.LRW_WORDS[index % len(raw.LRW_WORDS)]
        clip = raw.lrw_clip(word, 150 + index, seed)
        video = raw.save_lrw(out, word, "train", 900 + index, clip)
        _break_lrw(case, video, clip)
        listed.append((video.relative_to(out).as_posix(), case))
    root = out / "lipread_mp4"
    litter = [root / ".DS_Store", root / raw.LRW_WORDS[0] / "train/.DS_Store"]
    for path in litter:
        path.write_bytes(b"\x00\x00\x00\x01Bud1")
    (root / "lists").mkdir()
    (root / "lists/train.txt").write_text("ABOUT/train/ABOUT_00001\n")
    listed += [(path.relative_to(out).as_posix(), "stray_file") for path in litter]
    return [*listed, ("lipread_mp4/lists", "stray_folder")]


def odd_lrw1000(tree: Tree, rows: list[Row], seed: int) -> Odd:
    """Adds odd folders to LRW-1000 and their rows; (folder, pinyin and times, case) of each."""
    listed: Odd = []

    def note(row: Row, case: str) -> None:
        times = f"{row.start / 100:.2f},{row.end / 100:.2f}"
        listed.append((f"{row.folder},{row.pinyin},{times}", case))

    words = list(MANDARIN[:6])
    written = [word for word, _ in words]
    folder = folder_name(seed, 900)
    good = save_segment(tree, segment_clip(words, 300, seed), folder, "trn", written)
    gap = (good[0].start + good[0].end) // 2 // 4 + 1
    (tree.images / folder / f"{gap}.jpg").unlink()
    note(good[0], "frame_missing")
    (tree.audio / f"{good[1].audio}.wav").unlink()
    note(good[1], "audio_missing")
    good[2] = replace(good[2], end=good[2].start)
    note(good[2], "zero_length")
    rows += [*good, good[3]]
    note(good[3], "duplicate")
    wav = tree.audio / f"{good[4].audio}.wav"
    media.write_wav(wav, media.read_wav(wav)[:-30])
    note(good[4], "audio_30_short")

    lost = folder_name(seed, 901)
    new = save_segment(tree, segment_clip(words[:2], 301, seed), lost, "trn", written[:2])
    shutil.rmtree(tree.images / lost)
    for row in new:
        note(row, "folder_missing")
    rows += new

    for index, case in ((902, "early_cut"), (903, "early_zero_filled")):
        clip = _begin_early(segment_clip(words[:2], index, seed))
        row, other = save_segment(tree, clip, folder_name(seed, index), "trn", written[:2])
        if case == "early_zero_filled":
            wav = tree.audio / f"{row.audio}.wav"
            missing = (MARGIN - row.start) * 160
            media.write_wav(wav, np.pad(media.read_wav(wav), (missing, 0)))
        note(row, case)
        rows += [row, other]
    return [*listed, ("val_1000.txt", "byte_order_mark")]


def _begin_early(clip: Clip) -> Clip:
    """Drops frames in front until the first word starts less than 0.2 s into the film."""
    drop = int((clip.words[0][1] - 0.06) * FPS)
    shift = drop / FPS
    words = [(word, start - shift, end - shift) for word, start, end in clip.words]
    return Clip(clip.frames[drop:], clip.samples[drop * 640 :], words, clip.opening[drop:])
