"""`avb preview`: a contact sheet of prepared clips, the first thing to look at after `avb prep`."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from avb.pipeline.clip.codec import decode_video
from avb.pipeline.clip.npy import parse_npy
from avb.pipeline.config import stable_hash
from avb.pipeline.errors import UsageError, one_line
from avb.pipeline.shards.dataset import dataset_folders, read_dataset, read_manifest
from avb.pipeline.shards.metadata import read_facts
from avb.pipeline.shards.tar import sample_members
from avb.pipeline.storage.store import Folder, read_piece

LIPS_SHOWN, FACES_SHOWN = 8, 3
WIDTH = 1380
PICTURE = 90  # pixels of a side at most; three quarters of LRW's crops
PAPER, INK, FAINT = (255, 255, 255), (40, 40, 40), (150, 150, 150)
BOX, MOUTH = (0, 170, 0), (0, 60, 230)  # blue, green, red


def preview(folder: Folder, out: Path, clips: int = 8) -> str:
    """Draw `clips` clips of one dataset folder to the PNG `out`; returns what was drawn.

    Each row shows the stored crops over time, the box in them in green and the mouth in red, the
    log-mel with the words at their times, and what is odd about the clip. Clips are taken in turn
    from every group, odd ones first.
    """
    if not cv2.haveImageWriter(str(out)):
        raise UsageError(f"{out}: not the name of a picture; give one that ends in .png")
    folder = dataset_folders(folder)[0]
    record = read_dataset(folder)
    chosen = _choose(_candidates(folder, clips), clips)
    if not chosen:
        raise UsageError(f"{folder}: no clip passed, nothing to show")
    try:
        sheet = np.concatenate([_head(record), *[_strip(folder, row, record) for row in chosen]])
    except (ValueError, KeyError, StopIteration, OSError) as error:
        raise UsageError(
            f"{folder}: a clip cannot be read ({one_line(error)}); avb verify finds every fault"
        ) from None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        written = cv2.imwrite(str(out), sheet)
    except OSError:
        written = False
    if not written:
        raise UsageError(f"{out}: cannot be written; choose another place")
    stored = record["counts"]["ok"]
    return f"{len(chosen)} of {stored:,} clips of {record['corpus']} drawn to {out}"


def _candidates(folder: Folder, clips: int) -> list[dict[str, Any]]:
    """Of each group and combination of flags the first clips: no more can be chosen."""
    columns = ["key", "group", "flags", "status", "shard", "offset", "nbytes"]
    rows: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for batch in read_manifest(folder, columns):
        for row in batch.to_pylist():
            alike = rows.setdefault((row["group"], *row["flags"]), [])
            if row["status"] == "ok" and len(alike) < clips:
                alike.append(row)
    return [row for alike in rows.values() for row in alike]


def _choose(rows: list[dict[str, Any]], clips: int) -> list[dict[str, Any]]:
    """A repeatable choice: groups take turns, and in each group flags not seen yet come first."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda r: stable_hash(r["key"])):
        groups.setdefault(row["group"], []).append(row)
    chosen: list[dict[str, Any]] = []
    seen: set[str] = set()
    while len(chosen) < min(clips, len(rows)):
        for group in [g for g in sorted(groups) if groups[g]][: clips - len(chosen)]:
            fresh = [r for r in groups[group] if set(r["flags"]) - seen]
            row = (fresh or groups[group])[0]
            groups[group].remove(row)
            seen |= set(row["flags"])
            chosen.append(row)
    return chosen


def _text(picture: np.ndarray, text: str, x: int, y: int, colour: tuple[int, int, int]) -> None:
    """Text in the one font that OpenCV has, which holds ASCII only."""
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(picture, plain, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)


def _head(record: dict[str, Any]) -> np.ndarray:
    head = np.full((64, WIDTH, 3), PAPER, np.uint8)
    counts = record["counts"]
    _text(head, f"{record['title']} ({record['corpus']})", 10, 22, INK)
    refused = {k: n for k, n in counts["status"].items() if k != "ok"}
    shown = ", ".join(f"{k} {n:,}" for k, n in refused.items()) or "none"
    _text(head, f"{counts['ok']:,} of {counts['listed']:,} clips; refused: {shown}", 10, 40, INK)
    flags = ", ".join(f"{k} {n:,}" for k, n in counts["flags"].items()) or "none"
    _text(head, f"kept but odd: {flags}", 10, 57, FAINT)
    return head


def _strip(folder: Folder, row: dict[str, Any], record: dict[str, Any]) -> np.ndarray:
    """One clip: a line of text, crops over time on the left, mel and words on the right."""
    if None in (row["offset"], row["nbytes"]):
        raise ValueError(f"{row['key']}: the manifest does not say where it lies")
    piece = read_piece(folder, f"{row['shard']}.tar", row["offset"], row["nbytes"])
    parts = sample_members(piece, row["key"])
    facts = read_facts(parts["json"])
    strip = np.full((150, WIDTH, 3), PAPER, np.uint8)
    words = " ".join(w for w, _, _ in facts["words"])
    title = f"{row['key']}   {facts['label'] or words}"
    flags, length = ", ".join(facts["flags"]), f"   {facts['n_frames']} frames"
    room = (WIDTH - 20) // 8 - len(flags) - len(length)  # letters beside what is odd about it
    title = (title if len(title) <= room else f"{title[: room - 3]}...") + length
    _text(strip, title, 10, 16, INK)
    _text(strip, flags, 10 + 8 * len(title), 16, MOUTH)
    x = 10
    crops = record["crops"]
    for kind, shown in (("lips", LIPS_SHOWN), ("face", FACES_SHOWN)):
        if kind in crops:
            shown = shown if "lips" in crops else LIPS_SHOWN
            x = _crops(strip, kind, shown, x, parts, facts, crops[kind]) + 6
    if "mel.npy" in parts:
        mel = parse_npy(parts["mel.npy"]).astype(np.float32)
        _mel(strip, mel, facts, x)
    strip[-1] = (225, 225, 225)
    return strip


def _crops(
    strip: np.ndarray, kind: str, shown: int, x: int, parts: dict[str, memoryview],
    facts: dict[str, Any], spec: dict[str, Any],
) -> int:  # fmt: skip
    """Paste frames of one crop from `x` on; returns where they end."""
    side, margin = spec["stored"], spec["margin"]
    extension = next(e for e in parts if e.startswith(f"{kind}."))
    frames = np.empty((facts["n_frames"], side, side), np.uint8)
    decode_video(parts[extension], extension.split(".")[1], frames)
    small = min(PICTURE, round(0.75 * side))
    line = max(1, side // 120)  # it is seen in the smaller picture too
    for i in np.linspace(0, len(frames) - 1, shown).round().astype(int):
        picture = cv2.cvtColor(frames[i], cv2.COLOR_GRAY2BGR)
        cv2.rectangle(picture, (margin, margin), (side - margin - 1,) * 2, BOX, line)
        _mark_mouth(picture, kind, i, facts, spec, line)
        strip[24 : 24 + small, x : x + small] = cv2.resize(
            picture, (small, small), interpolation=cv2.INTER_AREA
        )
        _text(strip, f"{i / facts['fps']:.2f}", x, 24 + small + 14, FAINT)
        x += small + 2
    return x


def _mark_mouth(
    picture: np.ndarray, kind: str, i: int, facts: dict[str, Any], spec: dict[str, Any], line: int
) -> None:
    """A cross on the middle of the lips box, where the mouth should be."""
    boxes = facts["crop_boxes"]
    if "lips" not in boxes:
        return
    lips = boxes["lips"][min(i, len(boxes["lips"]) - 1)]
    own = boxes[kind][min(i, len(boxes[kind]) - 1)]
    scale = spec["size"] / (own[2] - own[0])
    x = spec["margin"] + ((lips[0] + lips[2]) / 2 - own[0]) * scale
    y = spec["margin"] + ((lips[1] + lips[3]) / 2 - own[1]) * scale
    at = round(x), round(y)
    cv2.drawMarker(picture, at, MOUTH, cv2.MARKER_CROSS, 13 * line, line, cv2.LINE_AA)


def _mel(strip: np.ndarray, mel: np.ndarray, facts: dict[str, Any], x: int) -> None:
    """The log-mel, low frequencies at the bottom, and the words under it."""
    width, height, top = WIDTH - x - 10, 88, 24
    low, high = np.percentile(mel, [2, 99.5])
    grey = np.clip((mel - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)[::-1]
    picture = cv2.resize(cv2.applyColorMap(grey, cv2.COLORMAP_MAGMA), (width, height))
    strip[top : top + height, x : x + width] = picture
    if abs(moved_ms := facts.get("sync_ms") or 0.0) >= 1:  # and below, as it was recorded
        half = cv2.resize(picture, (width, height // 2), interpolation=cv2.INTER_AREA)
        later = round(moved_ms / 1000 / facts["duration"] * width)
        both = np.concatenate([half, np.roll(half, later, axis=1)])
        both[height // 2] = PAPER
        _text(both, f"moved by {-moved_ms:+.0f} ms", 3, 12, PAPER)
        _text(both, "as recorded", 3, height // 2 + 13, PAPER)
        strip[top : top + height, x : x + width] = both
    for number, (word, start, end) in enumerate(facts["words"]):
        if start is None or end is None:
            continue
        left = x + round(max(0.0, start) / facts["duration"] * width)
        right = x + round(min(end, facts["duration"]) / facts["duration"] * width)
        cv2.line(strip, (left, top), (left, top + height + 4), BOX, 1)
        cv2.line(strip, (right, top), (right, top + height + 4), BOX, 1)
        _text(strip, word, left + 2, top + height + 12 + 13 * (number % 2), INK)
