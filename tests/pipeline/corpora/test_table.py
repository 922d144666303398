"""Anyone's own table: rows become clips, spans of films stay in sync, and no cell is guessed."""

import re
from collections import Counter
from pathlib import Path

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
CLICKS = (30, 77, 131)  # pictures at whose time there is one


def table(folder: Path, text: str, name: str = "mine.csv") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Picture n has the level 20 + n; there is a click at the time of each of `CLICKS`."""
    pictures = [np.full((48, 64), 20 + number, np.uint8) for number in range(FRAMES)]
    sound = np.zeros(FRAMES * 640, np.float32)
    sound[[640 * number for number in CLICKS]] = 0.9
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    return write_film(path, pictures, np.arange(FRAMES) / 25, sound)


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
    clips = mine.planned(tmp_path / "plan.arrow").values()
    sources = {clip.name: (clip.source, clip.status) for clip in clips}
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
    rows = importer("table", table(tmp_path, text)).planned(tmp_path / "plan.arrow")
    assert Counter(clip.status for clip in rows.values()) == {"": 4, "duplicate": 3}
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
        rows = importer("table", table(tmp_path, text)).planned(tmp_path / "plan.arrow")
        return {f"{clip.source} {clip.words}": key for key, clip in rows.items()}

    before = keys(given)
    assert len(set(before.values())) == 4 and before["y.mp4 [('no', None, None)]"] == "all/y_0_1000"
    assert keys(given[::-1]) == before
    more = keys(["c/x.mp4,0,1,yes", "b/x.mp4,0,1,maybe", *given])
    assert len(set(more.values())) == 6 and more.items() >= before.items()


# Spans


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
@pytest.mark.parametrize(
    ("start", "end", "first", "count"),
    [("1.0", "2.0", 25, 25), ("2.6", "3.51", 65, 23), ("4.97", "", 124, 26), ("", "1.6", 0, 40)],
)
def test_a_span_holds_its_pictures_and_their_sound(
    film: Path, tmp_path: Path, decoder: str, start: str, end: str, first: int, count: int
) -> None:
    path = table(tmp_path, f"video,start,end\n{film},{start},{end}\n")
    got = importer("table", path, decoder=decoder).load()
    found = [int(picture[0, 0]) - 20 for picture in got.media.frames]
    assert found == list(range(first, first + count)) and got.flags == set()
    sound, _ = got.fitted()
    assert len(sound) == count * 640
    [click] = [number - first for number in CLICKS if number in found]
    assert abs(int(np.abs(sound).argmax()) - click * 640) < 80  # 5 ms
    if start:  # else it begins where the film's own sound does
        assert abs(got.media.sound_start_s) < 0.005


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
def test_a_span_behind_the_end_is_refused(film: Path, tmp_path: Path, decoder: str) -> None:
    path = table(tmp_path, f"video,start,end\n{film},9,10\ngone.mp4,1,2\n")
    mine = importer("table", path, decoder=decoder)
    refusal = mine.refusal("film")
    assert refusal.status == "bad_decode"
    assert refusal.error == "film.mp4: starts at 9 s, the film ends at 6.00 s"
    refusal = mine.refusal("gone")
    assert (refusal.status, refusal.error) == ("unreadable", "gone.mp4: no such file")


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
def test_too_long_a_film_is_refused_with_what_to_do(
    film: Path, tmp_path: Path, decoder: str
) -> None:
    whole = table(tmp_path, f"video\n{film}\n")
    refusal = importer("table", whole, decoder=decoder, max_seconds=2.0).refusal()
    assert refusal.status == "long" and "longer than 2 s" in refusal.error
    assert "columns start and end" in refusal.error
    span = table(tmp_path, f"video,start,end\n{film},1.0,3.0\n")
    got = importer("table", span, decoder=decoder, max_seconds=2.0).load()
    assert len(got.media.frames) == 50


def test_paths_are_relative_and_may_have_blanks_and_alphabets(film: Path, tmp_path: Path) -> None:
    root = tmp_path / "Été 2024 база"
    (root / "口型 x").mkdir(parents=True)
    (root / "口型 x/film 1.mp4").write_bytes(film.read_bytes())
    got = importer("table", table(root, "video,start,end\n口型 x/film 1.mp4,1,2\n")).load()
    assert len(got.media.frames) == 25 and got.clip.source == "口型 x/film 1.mp4"
