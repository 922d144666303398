"""GRID: 34 talkers, 1,000 sentences of six words each, 75 frames of 360 x 288.

A clip's name spells its sentence (`bbaf2n` = bin blue at f two now), and every name belongs to
one talker only: where he has no alignment of his own, any of that name is his. Accepted trees:
`sN/NAME.mpg`, `sN/video/NAME.mpg`, `sN/video/mpg_6000/NAME.mpg`, `sN.mpg_6000.part1/...`,
`idN_vcd_NAME.mpg`, folders of pictures called NAME, and `NAME.align` anywhere. Talker 21 has no
video.

An align line is `start end word` in 1/25000 s (value / 1000 = frame). Known defects and how they
end: 74 frames (kept, `one_frame_short`), fewer (`short`), a grey start (`blank_frames`), damaged
macroblocks (kept, `damaged`), short pauses `sp` and CRLF (kept and flagged), alignments in another
talker's folder as in the Zenodo copy (used, `misfiled_alignment`), the 720 x 576 twin of a
360 x 288 file (`duplicate`). The sound inside the mpg is 22 ms shorter than its pictures.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import av

from avb.pipeline.clip.container import check_readable, open_container
from avb.pipeline.clip.image_folder import numbered_pictures, read_pictures
from avb.pipeline.clip.media import Expected, Media
from avb.pipeline.clip.pyav import read_sound
from avb.pipeline.clip.status import Refused
from avb.pipeline.config import Corpus
from avb.pipeline.corpora.clip import Clip, Listing, Word
from avb.pipeline.corpora.leftover import VIDEOS, left_out, walk, with_leftovers
from avb.pipeline.corpora.loading import load_film
from avb.pipeline.errors import UsageError
from avb.pipeline.settings import Settings

COMMANDS = {"b": "bin", "l": "lay", "p": "place", "s": "set"}
COLOURS = {"b": "blue", "g": "green", "r": "red", "w": "white"}
PREPOSITIONS = {"a": "at", "b": "by", "i": "in", "w": "with"}
LETTERS = {c: c for c in "abcdefghijklmnopqrstuvxyz"}
DIGITS = dict(
    zip("z123456789", "zero one two three four five six seven eight nine".split(), strict=True)
)
ADVERBS = {"a": "again", "n": "now", "p": "please", "s": "soon"}
SLOTS = (COMMANDS, COLOURS, PREPOSITIONS, LETTERS, DIGITS, ADVERBS)
VOCABULARY = sorted({word for slot in SLOTS for word in slot.values()})
SILENCES = ("sil", "sp")

NAME = re.compile(r"^(?:id(\d+)_(?:vcd|6000)_)?([blps][bgrw][abiw][a-vx-z][1-9z][anps])$", re.I)
TALKER = re.compile(r"^s(\d{1,2})(?:\..*)?$", re.I)
PICTURES = {".jpg", ".jpeg", ".png"}
UNITS_PER_S = 25_000
Companions = dict[str, list[str]]  # files by the name of their clip


def words_of(name: str) -> list[str]:
    """The six words that a clip name spells."""
    return [slot[letter] for slot, letter in zip(SLOTS, name.lower(), strict=True)]


def discover(root: Path, corpus: Corpus) -> Listing:
    """Every video, or folder of pictures, below the root; alignments and wavs by clip name."""
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder (give --root, or set AVB_GRID_ROOT)")
    videos, pictures, aligns, wavs, empty = _walk(root)
    if not any(NAME.match(PurePosixPath(v).stem) for v in videos) and not pictures:
        raise UsageError(
            f"{root}: no GRID clip found; looked for six-letter names like bbaf2n.mpg anywhere"
            f" below it, met {len(videos)} other videos ({left_out(root) or 'no media files'})"
        )
    notices = [f"talkers without a video: {', '.join(empty)}"] if empty else []
    shapes = {_shape(v) for v in videos} | ({"folders of pictures"} if pictures else set())
    layout = ", ".join(sorted(shapes)) + (f"; {len(aligns)} alignments" if aligns else "")
    clips = with_leftovers(_clips(root, videos, pictures, aligns, wavs), root, notices, _companion)
    return Listing(root, layout, clips, list(VOCABULARY), notices, met=True)


def _shape(video: str) -> str:
    path = PurePosixPath(video)
    folders = [TALKER.sub("sN", part) for part in path.parts[:-1]]
    disc = "idN_vcd_" if path.stem.startswith("id") else ""
    return "/".join([*folders, f"{disc}NAME{path.suffix}"])


def _companion(path: PurePosixPath) -> bool:
    """Whether a file is the sound of a sentence, or one of its pictures."""
    suffix = path.suffix.lower()
    return bool(
        (suffix == ".wav" and NAME.match(path.stem))
        or (suffix in PICTURES and NAME.match(path.parent.name))
    )


def _walk(root: Path) -> tuple[list[str], list[str], Companions, Companions, list[str]]:
    """Videos, picture folders, alignments and wavs by name, and talkers without video."""
    videos: list[str] = []
    pictures: list[str] = []
    aligns: Companions = {}
    wavs: Companions = {}
    talkers: set[str] = set()
    for here, folders, files in walk(root):
        talkers.update(f"s{int(m[1])}" for f in folders if (m := TALKER.match(f)))
        if NAME.match(here.name) and any(Path(f).suffix.lower() in PICTURES for f in files):
            pictures.append(str(here))
        for path in (here / file for file in files):
            suffix = path.suffix.lower()
            if suffix in VIDEOS:
                videos.append(str(path))
            elif suffix == ".align":
                aligns.setdefault(path.stem.lower(), []).append(str(path))
            elif suffix == ".wav":
                wavs.setdefault(path.stem.lower(), []).append(str(path))
    seen = {s for v in (*videos, *pictures) if (s := _talker(PurePosixPath(v), root))}
    return videos, pictures, aligns, wavs, sorted(talkers - seen, key=lambda s: int(s[1:]))


def _talker(path: PurePosixPath, root: Path) -> str | None:
    """Such as "s1": from the nearest folder called so, the disc name, or the root's own name."""
    top, disc = TALKER.match(root.resolve().name), NAME.match(path.stem)
    numbers = [match[1] for match in (top, disc) if match and match[1]]
    numbers += [match[1] for part in path.parts[:-1] if (match := TALKER.match(part))]
    return f"s{int(numbers[-1])}" if numbers else None


def _clips(
    root: Path, videos: list[str], pictures: list[str], aligns: Companions, wavs: Companions
) -> Iterator[Clip]:
    def own(files: Companions, name: str, speaker: str | None) -> str | None:
        """The talker's own file of this name, else the first one."""
        found = files.get(name, [])
        theirs = (file for file in found if _talker(PurePosixPath(file), root) == speaker)
        return next(theirs, found[0] if found else None)

    named: dict[tuple[str | None, str], list[str]] = {}
    for source in (*videos, *pictures):
        path = PurePosixPath(source)
        speaker = _talker(path, root)
        if match := NAME.match(path.stem):
            named.setdefault((speaker, match[2].lower()), []).append(source)
            continue
        stem = path.stem.lower()
        clip = _clip(source, stem, speaker, own(aligns, stem, speaker))
        clip.status, clip.error = "bad_name", f"{source}: the name spells no GRID sentence"
        yield clip
    folders = set(pictures)
    for (speaker, name), sources in named.items():
        align = own(aligns, name, speaker)
        twins = [_clip(source, name, speaker, align) for source in sources]
        if len(twins) > 1:
            twins.sort(key=lambda c: _preference(root, c))
        for clip in twins:
            clip.words = [(word, None, None) for word in words_of(name)]
            if clip.source in folders:
                clip.audio = own(wavs, name, speaker)
            if speaker is None:
                clip.status = "no_speaker"
                clip.error = f"{clip.source}: no folder sN, no name idN_vcd_NAME"
            if clip is not twins[0]:
                clip.status = "duplicate"
                clip.error = f"{clip.source}: {twins[0].source} was taken"
            yield clip


def _clip(source: str, name: str, speaker: str | None, align: str | None) -> Clip:
    return Clip(
        name=name.replace(".", "_"),
        group=speaker or "unknown",
        speaker=speaker,
        source=source,
        text=align,
    )


def _preference(root: Path, clip: Clip) -> tuple[bool, bool, int, str]:
    """Order among files of one sentence: pictures last, else the 360x288 one first."""
    pictures = PurePosixPath(clip.source).suffix == ""
    high_rate = "mpg_6000" in clip.source or "_6000_" in clip.source
    return (pictures, high_rate, 0 if pictures else _pixels(root / clip.source), clip.source)


def _pixels(path: Path) -> int:
    """Pixels of a video's picture by its header; what is no video comes last."""
    try:
        with open_container(str(path)) as container:
            stream = container.streams.video[0]
            return int(stream.width * stream.height)
    except (av.FFmpegError, IndexError):
        check_readable(str(path))
        return 1 << 40


def load(root: Path, clip: Clip, settings: Settings) -> Media:
    """The clip's 75 or 74 pictures and its sound."""
    path = root / clip.source
    media = _load_pictures(root, clip, settings) if path.is_dir() else load_film(path, settings)
    media.expected = Expected(clip.source, settings.frames, one_may_lack=True, refuse_blank=True)
    return media


def _load_pictures(root: Path, clip: Clip, settings: Settings) -> Media:
    """A folder of pictures, with the separate wav only if it is as long as they are."""
    paths = numbered_pictures(root / clip.source)
    if len(paths) > settings.max_seconds * settings.fps:
        raise Refused("long", f"{clip.source}: {len(paths)} pictures")
    media = read_pictures(paths)
    if clip.audio is None:
        if settings.audio == "required":
            raise Refused("no_audio", f"{clip.source}: pictures only, and no {clip.name}.wav")
        media.flags.add("no_audio")
        return media
    media.sound, media.rate = read_sound(root / clip.audio)
    media.flags.add("separate_audio")
    gap = len(media.sound) / media.rate - len(paths) / settings.fps
    if abs(gap) > 1 / settings.fps + 1e-6:
        # The distributed wavs are trimmed: used anyway, speech would lead the lips.
        raise Refused(
            "missing_audio",
            f"{clip.audio}: {gap:+.2f} s against {len(paths)} pictures; it was trimmed, not used",
        )
    return media


def words(
    root: Path, clip: Clip, num_frames: int, settings: Settings, flags: set[str]
) -> list[Word]:
    """The six words with their times from the alignment, or without times if it is unusable."""
    if clip.text is None:
        flags.add("no_alignment")
        return clip.words
    raw = (root / clip.text).read_bytes()
    if b"\r\n" in raw:
        flags.add("crlf")
    folder = _talker(PurePosixPath(clip.text), root)
    if folder is not None and folder != clip.speaker:
        flags.add("misfiled_alignment")
    try:
        aligned = parse_align(raw.decode("ascii", "replace"), flags)
    except ValueError:
        aligned = []
    if [w for w, _, _ in aligned] != [w for w, _, _ in clip.words]:
        flags.add("bad_alignment")
        return clip.words
    return aligned


def parse_align(text: str, flags: set[str]) -> list[Word]:
    """Words and times (s) of an align file, without silences; ValueError: times that cannot be."""
    words: list[Word] = []
    last = 0
    for line in text.split("\n"):
        parts = line.split()
        if not parts:
            continue
        if len(parts) != 3:
            raise ValueError(line)
        start, end, word = int(parts[0]), int(parts[1]), parts[2].lower()
        if not last <= start <= end <= 75_000:
            raise ValueError(line)
        last = start
        if word == "sp":
            flags.add("short_pause")
        if word not in SILENCES:
            words.append((word, start / UNITS_PER_S, end / UNITS_PER_S))
    return words
