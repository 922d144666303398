"""Anyone's own table: rows become clips, spans of films stay in sync, and no cell is guessed."""

import json
import re
from pathlib import Path
from unittest.mock import patch

import av
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from films import write_film
from importers import fitted, importer

from avb.pipeline.clip import decode
from avb.tools.synth import media

FRAMES = 150  # 6 s
FLASHES = (30, 77, 131)  # pictures that are bright, with a click at the same time


def table(folder: Path, text: str, name: str = "mine.csv") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One film of flashes and clicks with a key picture every 12 (mpg) or only at the start."""
    folder = tmp_path_factory.mktemp("films")
    # A moving texture, so that packets are as large as those of real films.
    texture = np.random.default_rng(0).integers(60, 150, (18, 22), np.uint8).repeat(8, 0)
    texture = texture.repeat(8, 1)
    pictures, sound = [], np.zeros(FRAMES * 640, np.float32)
    for number in range(FRAMES):
        picture = np.roll(texture, 5 * number, axis=1)
        for bit in range(8):
            picture[:16, 16 * bit : 16 * bit + 16] = 220 if number >> bit & 1 else 20
        picture[48:96, 64:112] = 235 if number in FLASHES else 60
        pictures.append(np.repeat(picture[..., None], 3, axis=2))
    for number in FLASHES:
        sound[number * 640] = 0.9
    with patch.object(media, "GRID_AUDIO_SAMPLES", FRAMES * 1764):
        media.write_mpg(folder / "film.mpg", pictures, sound)
    luma = [picture[..., 0] for picture in pictures]
    write_film(folder / "film.mp4", luma, np.arange(FRAMES) / 25, sound)
    for name in ("film.mkv", "film.ts"):  # without the edit list: its sound begins at -64 ms
        with av.open(str(folder / "film.mp4")) as source, av.open(str(folder / name), "w") as out:
            copies = {s.index: out.add_stream_from_template(s) for s in source.streams}
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = copies[packet.stream.index]
                    out.mux(packet)
    return folder


# Files


def test_csv_and_parquet_say_the_same(tmp_path: Path) -> None:
    text = "video,start,end,label,speaker,split,words\na.mp4,0.5,1.5,yes,anna,train,oh yes\nb.mp4"
    csv = table(tmp_path, text + ",,,,,,\n")
    pq.write_table(pa.csv.read_csv(csv), tmp_path / "mine.parquet")
    first, second = importer("table", csv).clips()
    assert importer("table", tmp_path / "mine.parquet").clips() == [first, second]
    assert (first.source, first.start, first.end) == ("a.mp4", 0.5, 1.5)
    assert (first.label, first.speaker, first.split) == ("yes", "anna", "train")
    assert first.group == "train" and first.name == "a_500_1500"
    assert first.words == [("oh", None, None), ("yes", None, None)]
    assert (second.start, second.end, second.label, second.words) == (None, None, None, [])


def test_only_the_column_video_is_needed_and_others_are_named(tmp_path: Path) -> None:
    [clip] = importer("table", table(tmp_path, "video\nfolder/a.mp4\n")).clips()
    assert (clip.name, clip.group, clip.status) == ("a", "all", "")
    listing = importer("table", table(tmp_path, "video,age,Label\na.mp4,3,x\n")).listing()
    assert listing.notices == ["columns not used: Label, age"]


# Cells


def test_no_label_word_or_talker_is_guessed_to_be_a_number_or_nothing(tmp_path: Path) -> None:
    text = "video,label,speaker,words\nb.mp4,002,010,true\na.mp4,001,007,null\n"
    listing = importer("table", table(tmp_path, text)).listing()
    clips = list(listing.clips)
    assert listing.labels == ["001", "002"]
    assert [(c.label, c.speaker) for c in clips] == [("002", "010"), ("001", "007")]
    assert [c.words for c in clips] == [[("true", None, None)], [("null", None, None)]]


def test_every_row_has_its_own_dotless_key(tmp_path: Path) -> None:
    videos = ["x/a.b.mp4", "y/a.b.mp4", "z/a.b.mp4", "ä ö.mp4", "...mp4"]
    mine = importer("table", table(tmp_path, "video\n" + "\n".join(videos) + "\n"))
    plan = mine.plan(tmp_path / "plan.arrow")
    rows = [row for unit in plan.units for row in plan.rows(unit.number)]
    sources = {clip.name: (clip.source, clip.status) for _, clip in rows}
    assert sources.pop("ä_ö") == ("ä ö.mp4", "")
    twins = [sources.pop(name) for name in list(sources) if re.fullmatch("a_b-[0-9a-f]{8}", name)]
    assert sorted(twins) == [(video, "") for video in videos[:3]]
    [last] = sources
    assert not set("./ ") & set(last)
    text = "video,start,end\na.mp4,0,1\na.mp4,1,2\na.mp4,1,\n"
    names = [clip.name for clip in importer("table", table(tmp_path, text)).clips()]
    assert names == ["a_0_1000", "a_1000_2000", "a_1000_"]


def test_a_row_given_twice_is_kept_once_and_no_other_is_lost(tmp_path: Path) -> None:
    given = ["a.mp4,0,1,yes", "a.mp4,0,1,no", "x/a.mp4,0,1,yes", "a.mp4,1,2,yes"]
    text = "\n".join(["video,start,end,words", *given, *given[:2], "a.mp4,0,1.0,yes"])
    plan = importer("table", table(tmp_path, text)).plan(tmp_path / "plan.arrow")
    assert plan.statuses == {"ok": 4, "duplicate": 3}
    rows = dict(row for unit in plan.units for row in plan.rows(unit.number))
    good = [(clip.source, clip.words[0][0]) for clip in rows.values() if not clip.status]
    assert sorted(good) == sorted([
        ("a.mp4", "yes"), ("a.mp4", "no"), ("x/a.mp4", "yes"), ("a.mp4", "yes"),
    ])  # fmt: skip
    assert len({key.partition("~")[0] for key in rows}) == 4 and "all/a_1000_2000" in rows
    again = {key: clip.error for key, clip in rows.items() if clip.status}
    assert all(error == f"{key[:-2]} was listed before" for key, error in again.items())


def test_a_row_more_changes_the_key_of_no_twin(tmp_path: Path) -> None:
    given = ["a/x.mp4,0,1,yes", "b/x.mp4,0,1,yes", "b/x.mp4,0,1,no", "y.mp4,0,1,no"]

    def keys(rows: list[str]) -> dict[str, str]:
        text = "\n".join(["video,start,end,words", *rows])
        plan = importer("table", table(tmp_path, text)).plan(tmp_path / "plan.arrow")
        clips = [row for unit in plan.units for row in plan.rows(unit.number)]
        return {f"{clip.source} {clip.words}": key for key, clip in clips if not clip.status}

    before = keys(given)
    assert len(set(before.values())) == 4 and before["y.mp4 [('no', None, None)]"] == "all/y_0_1000"
    assert keys(given[::-1]) == before
    more = keys(["c/x.mp4,0,1,yes", "b/x.mp4,0,1,maybe", *given])
    assert len(set(more.values())) == 6 and more.items() >= before.items()


# Spans


def test_a_seek_in_a_program_stream_may_land_behind_the_wanted_picture(films: Path) -> None:
    late = {}
    for name in ("film.mp4", "film.mpg"):
        late[name] = []
        with av.open(str(films / name)) as container:
            for number in range(10, 140, 10):
                container.seek(number * 40_000, backward=True)
                if next(container.decode(video=0)).time > number / 25 + 0.001:
                    late[name].append(number)
    assert late["film.mp4"] == [] and len(late["film.mpg"]) > 3
    for number in late["film.mpg"]:
        got = decode.read_video(films / "film.mpg", 25, number / 25, number / 25 + 0.2)
        assert numbers(got.frames) == list(range(number, number + 5))


def numbers(pictures: list[np.ndarray]) -> list[int]:
    """Picture numbers, written into them as eight squares."""
    squares = [[p[4:12, 16 * bit + 4 : 16 * bit + 12].mean() > 120 for bit in range(8)]
               for p in pictures]  # fmt: skip
    return [sum(1 << bit for bit in range(8) if found[bit]) for found in squares]


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
@pytest.mark.parametrize("name", ["film.mpg", "film.mp4", "film.mkv", "film.ts"])
@pytest.mark.parametrize(
    ("start", "end", "first", "count"),
    [(1.0, 2.0, 25, 25), (2.6, 3.51, 65, 23), (4.97, None, 124, 26), (None, 1.6, 0, 40)],
)
def test_a_span_holds_its_pictures_and_their_sound(
    films: Path, tmp_path: Path, decoder: str, name: str,
    start: float | None, end: float | None, first: int, count: int,
) -> None:  # fmt: skip
    cells = ["" if value is None else str(value) for value in (start, end)]
    path = table(tmp_path, f"video,start,end\n{films / name},{cells[0]},{cells[1]}\n")
    got = importer("table", path, decoder=decoder).load()
    found = numbers(got.media.frames)
    assert found == list(range(first, first + count))
    [flash] = [i for i, p in enumerate(got.media.frames) if p[56:88, 72:104].mean() > 150]
    assert flash + first in FLASHES
    sound, _ = got.fitted()
    assert len(sound) == count * 640
    assert abs(int(np.abs(sound).argmax()) - flash * 640) < 80  # 5 ms
    if start is not None:  # else it begins where the film's own sound does
        assert abs(got.media.sound_start_s) < 0.005
    assert got.flags == set()


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
def test_sound_that_lies_far_behind_its_pictures_in_the_file_is_not_lost(
    tmp_path: Path, decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where pictures are small, a program stream holds a second and more of them first."""
    sound = np.zeros(FRAMES * 640, np.float32)
    sound[77 * 640] = 0.9
    flat = [np.full((48, 64, 3), 60, np.uint8)] * FRAMES
    flat[77] = np.full((48, 64, 3), 220, np.uint8)
    monkeypatch.setattr(media, "GRID_AUDIO_SAMPLES", FRAMES * 1764)
    media.write_mpg(tmp_path / "flat.mpg", flat, sound)
    ahead, met = 0.0, 0.0
    with av.open(str(tmp_path / "flat.mpg")) as container:
        for packet in container.demux():
            if packet.pts is not None:
                time = float(packet.pts * packet.time_base)
                if packet.stream.type == "video":
                    met = time
                else:
                    ahead = max(ahead, met - time)
    assert ahead > 1.5  # to stop at the first picture a second past the end is too early
    got = decode.read_video(tmp_path / "flat.mpg", 25, 2.6, 3.2, decoder=decoder)
    heard, _ = fitted(got)
    assert len(got.frames) == 15 and got.frames[12].mean() > 150
    assert abs(int(np.abs(heard).argmax()) - 12 * 640) < 80


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
def test_a_span_behind_the_end_is_refused(films: Path, tmp_path: Path, decoder: str) -> None:
    kinds = ("film.mp4", "film.ts", "film.mpg")
    behind = "".join(f"{films / name},9,10\n" for name in kinds)
    path = table(tmp_path, f"video,start,end\n{behind}gone.mp4,1,2\n")
    mine = importer("table", path, decoder=decoder)
    for name in kinds:
        refusal = mine.refusal(name)
        assert refusal.status == "bad_decode"
        assert refusal.error == f"{name}: starts at 9 s, the film ends at 6.00 s"
    refusal = mine.refusal("gone")
    assert (refusal.status, refusal.error) == ("unreadable", "gone.mp4: no such file")


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
def test_too_long_a_film_is_refused_with_what_to_do(
    films: Path, tmp_path: Path, decoder: str
) -> None:
    whole = table(tmp_path, f"video\n{films / 'film.mp4'}\n")
    refusal = importer("table", whole, decoder=decoder, max_seconds=2.0).refusal()
    assert refusal.status == "long" and "longer than 2 s" in refusal.error
    assert "columns start and end" in refusal.error
    span = table(tmp_path, f"video,start,end\n{films / 'film.mp4'},1.0,3.0\n")
    got = importer("table", span, decoder=decoder, max_seconds=2.0).load()
    assert len(got.media.frames) == 50


def test_paths_are_relative_and_may_have_blanks_and_alphabets(films: Path, tmp_path: Path) -> None:
    root = tmp_path / "Été 2024 база"
    (root / "口型 x").mkdir(parents=True)
    (root / "口型 x/film 1.mp4").write_bytes((films / "film.mp4").read_bytes())
    got = importer("table", table(root, "video,start,end\n口型 x/film 1.mp4,1,2\n")).load()
    assert len(got.media.frames) == 25 and got.clip.source == "口型 x/film 1.mp4"


def test_words_and_labels_reach_the_clip(films: Path, tmp_path: Path) -> None:
    words = json.dumps([["oh", 0.1, 0.4], ["yes", 0.5, 0.9]])
    row = {"video": str(films / "film.mp4"), "start": 1.0, "end": 2.0, "words": words}
    pq.write_table(pa.Table.from_pylist([row | {"label": "yes"}]), tmp_path / "mine.parquet")
    got = importer("table", tmp_path / "mine.parquet").load()
    assert got.words == [("oh", 0.1, 0.4), ("yes", 0.5, 0.9)] and got.clip.label == "yes"
