"""Promise: every key of datasets.yaml is checked, and flag > variable > file > built-in."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import fault, refused

from avb.pipeline.config import corpus_root, find_split, load_corpora
from avb.pipeline.errors import UsageError


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# What the built-in file says


def test_the_corpora_have_their_published_counts() -> None:
    corpora = load_corpora()
    assert list(corpora) == ["lrw", "lrw1000", "grid", "table"]
    parts = {n: [c.expected.get(p) for p in ("train", "val", "test")] for n, c in corpora.items()}
    assert parts["lrw"] == [488_766, 25_000, 25_000]
    assert sum(parts["lrw"]) == corpora["lrw"].expected["clips"] == 538_766
    assert sum(parts["lrw1000"]) == corpora["lrw1000"].expected["clips"] == 718_018
    classes = {n: c.expected.get("classes") for n, c in corpora.items()}
    assert classes == {"lrw": 500, "lrw1000": 1000, "grid": 51, "table": None}
    assert corpora["grid"].expected["speakers"] == 33
    assert [corpora[n].frames for n in ("lrw", "lrw1000", "grid")] == [29, None, 75]
    assert [corpora[n].shard_clips for n in ("lrw", "lrw1000", "grid")] == [2048, 2048, 256]


@pytest.mark.parametrize(
    ("corpus", "wanted"),
    [
        ("lrw", (400, 400, 2.0, "htk", None, 0.0, 8000.0, 0.0, 1e-10)),
        ("lrw1000", (400, 400, 2.0, "htk", None, 0.0, 8000.0, 0.0, 1e-10)),
        ("grid", (800, 800, 1.0, "slaney", "slaney", 55.0, 7600.0, 0.97, 1e-5)),
    ],
)
def test_the_front_ends_are_those_of_the_paper(corpus: str, wanted: tuple[Any, ...]) -> None:
    entry = load_corpora()[corpus]
    mel = entry.mel
    found = (mel.window, mel.n_fft, mel.power, mel.mel_scale, mel.norm, mel.f_min, mel.f_max)
    assert (*found, mel.preemphasis, mel.floor) == wanted
    assert (mel.n_mels, mel.hop, entry.fps, entry.sample_rate) == (80, 160, 25, 16000)
    assert entry.sample_rate // entry.fps == 4 * mel.hop  # 4 columns a frame


def test_crops_are_stored_with_four_pixels_of_margin() -> None:
    grid = load_corpora()["grid"]
    assert (grid.crops["lips"].size, grid.crops["lips"].stored) == (112, 120)
    assert (grid.crops["face"].size, grid.crops["face"].stored) == (96, 104)
    lrw = load_corpora()["lrw"]
    assert lrw.fixed_box is not None
    x0, y0, x1, y1 = lrw.fixed_box
    # Both fixed boxes in public code, 136 and 96 wide, are centred here.
    assert ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0) == (127, 163, 136, 136)
    # 4 stored pixels are the paper's jitter of 5 source pixels.
    assert 4 * (x1 - x0) / 112 == pytest.approx(5, abs=0.15)


def test_splits_name_every_talker_or_residue_once() -> None:
    name, split = find_split(load_corpora()["grid"], "speaker-independent")
    assert name == "vcagan-16-7-10"  # 15/5/5 of the paper is another, unknown one
    talkers = [t for part in split.parts.values() for t in part]
    assert [len(split.parts[p]) for p in ("train", "val", "test")] == [16, 7, 10]
    assert sorted(talkers) == sorted(f"s{n}" for n in range(1, 35) if n != 21)
    for alias in ("speaker-dependent", "grid-hash"):
        _, split = find_split(load_corpora()["grid"], alias)
        assert sorted(r for part in split.parts.values() for r in part) == list(range(20))
    with pytest.raises(UsageError, match="no split '15-5-5'.*vcagan-16-7-10"):
        find_split(load_corpora()["grid"], "15-5-5")


def test_parts_follow_the_written_rules() -> None:
    grid, lrw = load_corpora()["grid"], load_corpora()["lrw"]
    names = [f"bba{letter}{digit}n" for letter in "abcdefgh" for digit in "123456789z"]
    lots = {n: int(hashlib.sha256(n.encode()).hexdigest()[:8], 16) % 20 for n in names}
    wanted = {n: "val" if lot == 0 else "test" if lot < 5 else "train" for n, lot in lots.items()}
    assert set(wanted.values()) == {"train", "val", "test"}
    every, four = grid.splits["grid-hash"], grid.splits["grid-4talkers-hash"]
    for name, part in wanted.items():
        # The same sentence of another talker must not be in another part.
        assert every.part_of(f"s1/{name}", "s1", None) == part
        assert every.part_of(f"s3/{name}", "s3", None) == part
        assert four.part_of(f"s1/{name}", "s1", None) == part
        assert four.part_of(f"s3/{name}", "s3", None) is None
    unseen = grid.splits["vcagan-16-7-10"]
    found = [unseen.part_of(f"{t}/bbaf2n", t, None) for t in ("s1", "s9", "s2", "s21")]
    assert found == ["train", "val", "test", None]
    assert lrw.splits["official"].part_of("val/ABOUT_00001", None, "val") == "val"


def test_the_public_list_of_four_talkers_is_fifty_clips_of_each_and_the_rest() -> None:
    listed = load_corpora()["grid"].splits["vcagan-4talkers"]
    for part, ours in (("val", 199), ("test", 200)):  # of talker 1 its val lacks one
        members = listed.parts[part]
        assert len(members) == len(set(members)) == ours
        assert {str(name).split("/")[0] for name in members} == {"s1", "s2", "s4", "s29"}
    assert not set(listed.parts["val"]) & set(listed.parts["test"])
    assert listed.part_of("s1/srih1s", "s1", None) == "val"  # first line of its val_4.txt
    assert listed.part_of("s29/srwz6n", "s29", None) == "test"  # last line of its test_4.txt
    assert listed.part_of("s2/bbaf1n", "s2", None) == "train"
    assert listed.part_of("s3/srih1s", "s3", None) is None


# Errors


def unknown(place: str, key: str, nearest: str) -> str:
    return f"{place}: unknown key {key!r}; the nearest right one is {nearest!r}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lwr: {fps: 25}", unknown("mine.yaml", "lwr", "lrw")),
        ("lrw: {shard_clip: 10}", unknown("mine.yaml: lrw", "shard_clip", "shard_clips")),
        ("grid: {mel: {hops: 160}}", unknown("mine.yaml: grid.mel", "hops", "hop")),
        ("grid: {crops: {lisp: {size: 9, margin: 4}}}", unknown("grid.crops", "lisp", "lips")),
        ("grid: {crops: {lips: {sise: 96}}}", unknown("grid.crops.lips", "sise", "size")),
        ("grid: {splits: {a: {bye: speaker, source: x}}}", unknown("grid.splits.a", "bye", "by")),
        ("lrw: {expected: {trian: 5}}", unknown("lrw.expected", "trian", "train")),
        ("lrw: {licence: {naem: x}}", unknown("lrw.licence", "naem", "name")),
        ("lrw: {fps: '25'}", "lrw.fps: expected int, found '25' (str)"),
        ("lrw: {frames: 29.5}", "lrw.frames: expected int, found 29.5 (float)"),
        ("lrw: {fps: true}", "lrw.fps: expected int, found True (bool)"),  # Python: it is an int
        ("lrw: {keep_audio: 1}", "lrw.keep_audio: expected bool, found 1 (int)"),
        ("lrw: {root: 5}", "lrw.root: expected str, found 5 (int)"),
        ("lrw: {mel: 3}", "lrw.mel: expected a mapping, found 3 (int)"),
        ("lrw: {fixed_box: 59}", "lrw.fixed_box: expected a list, found 59 (int)"),
        ("lrw: {fixed_box: [59, 95, 195, x]}", "lrw.fixed_box[3]: expected int, found 'x' (str)"),
        ("lrw: {box: trakced}", "lrw.box: 'trakced' is none of fixed, tracked, whole; did you"
         " mean tracked?"),
        ("lrw: {mel: {mel_scale: HTK}}", "lrw.mel.mel_scale: 'HTK' is none of htk, slaney"),
        ("lrw: {mel: {floor: tiny}}", "lrw.mel.floor: expected float, found 'tiny' (str)"),
        ("lrw: {mel: {hop: 500}}", "lrw.mel: a mel front end has 0 < hop <= window <= n_fft"),
        ("grid: {fps: 24}", "grid: 16000 Hz, 24 pictures a second and a hop of 160 samples"),
        ("grid: {fps: 0}", "grid: 16000 Hz, 0 pictures a second"),
        ("grid: {mel: {hop: 100}}", "networks take 4 mel columns a picture"),
        ("lrw: {mel: {f_max: 9e3}}", "lrw: mels up to 9000 Hz; sound at 16000 Hz has half of that"),
        ("grid: {splits: {mine: {by: speaker}}}", "grid.splits.mine: the key 'source' is missing"),
        ("grid: {splits: {a: {by: speaker, source: x, parts: {trian: [s1]}}}}",
         unknown("grid.splits.a.parts", "trian", "train")),
        ("table: {splits: {a: {by: speaker, source: x, parts: {val: [anna, 1]}}}}",
         "table.splits.a: talker or clip 1 is no text; write '1'"),
        ("grid: {splits: {a: {by: hash, source: x, parts: {test: [20]}}}}",
         "grid.splits.a: residue 20 is no number from 0 to 19"),
        ("table: {splits: {a: {by: speaker, source: x, parts: {train: [eve, bo], test: [bo]}}}}",
         "table.splits.a: 'bo' is in more than one part"),
        ("- lrw", "mine.yaml: expected a mapping of corpora, found ['lrw'] (list)"),
    ],
)  # fmt: skip
def test_an_error_names_its_place_and_what_is_right(tmp_path: Path, text: str, said: str) -> None:
    message = fault(load_corpora, write(tmp_path, text))
    assert said in message and "mine.yaml" in message


def test_a_missing_or_broken_file_is_one_line_that_names_it(tmp_path: Path) -> None:
    assert "none.yaml: cannot be read (No such file" in fault(load_corpora, tmp_path / "none.yaml")
    text = fault(load_corpora, write(tmp_path, "lrw: {fps: [25"))
    assert "mine.yaml: not valid YAML" in text


# Precedence


def test_a_file_overrides_key_by_key(tmp_path: Path) -> None:
    path = write(tmp_path, "grid: {mel: {window: 640}, shard_clips: 8, crops: {lips: {size: 88}}}")
    builtin, mine = load_corpora(), load_corpora(path)
    assert (mine["grid"].mel.window, mine["grid"].shard_clips) == (640, 8)
    assert mine["grid"].crops["lips"].size == 88 and mine["grid"].crops["lips"].margin == 4
    assert mine["grid"].crops["face"] == builtin["grid"].crops["face"]
    assert mine["grid"].mel.n_fft == builtin["grid"].mel.n_fft
    # lrw shares nothing with grid but table shares its mel through an anchor; it stays.
    assert mine | {"grid": None} == builtin | {"grid": None}


def test_an_empty_file_changes_nothing_and_numbers_are_what_they_mean(tmp_path: Path) -> None:
    assert load_corpora(write(tmp_path, "# nothing yet\n")) == load_corpora()
    mel = load_corpora(write(tmp_path, "grid: {mel: {f_max: 8000}}"))["grid"].mel
    assert mel.f_max == 8000.0 and isinstance(mel.f_max, float)
    text = "lrw: {mel: {floor: 1e-9, f_max: 7e3}}"
    assert yaml.safe_load(text)["lrw"]["mel"]["floor"] == "1e-9"  # YAML 1.1: a text
    mel = load_corpora(write(tmp_path, text))["lrw"].mel
    assert (mel.floor, mel.f_max) == (1e-9, 7000.0)


@pytest.mark.parametrize("corpus", ["lrw", "lrw1000", "grid"])
@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"flag", "variable", "file"}, "flag"),
        ({"flag"}, "flag"),
        ({"variable", "file"}, "variable"),
        ({"file"}, "file"),
        (set(), "builtin"),
    ],
)
def test_flag_beats_variable_beats_file_beats_builtin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus: str, given: set[str], wanted: str
) -> None:
    for name in ("LRW", "LRW1000", "GRID"):
        monkeypatch.delenv(f"AVB_{name}_ROOT", raising=False)
    roots = {way: tmp_path / way for way in ("flag", "variable", "file")}
    roots["builtin"] = Path("data") / corpus
    if "variable" in given:
        monkeypatch.setenv(f"AVB_{corpus.upper()}_ROOT", str(roots["variable"]))
    path = write(tmp_path, f"{corpus}: {{root: '{roots['file']}'}}") if "file" in given else None
    flag = roots["flag"] if "flag" in given else None
    assert corpus_root(corpus, load_corpora(path)[corpus], flag) == roots[wanted]
    if wanted != "builtin":  # the command line takes the same way, and finds nothing there
        words = ["--datasets", str(path)] if path else []
        words += ["prep", corpus, "--out", str(tmp_path / "out"), "--dry-run"]
        line = refused(*words, *(["--root", flag] if flag else []))
        assert line.startswith(f"avb: {roots[wanted]}: no ")


def test_a_variable_is_of_its_corpus_alone_and_a_tilde_is_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AVB_LRW_ROOT", raising=False)
    monkeypatch.setenv("AVB_LRW1000_ROOT", "/elsewhere")
    monkeypatch.setenv("AVB_GRID_ROOT", "~/grid")
    monkeypatch.setenv("HOME", str(tmp_path))
    corpora = load_corpora()
    assert corpus_root("lrw", corpora["lrw"]) == Path("data/lrw")
    assert corpus_root("grid", corpora["grid"]) == tmp_path / "grid"


def test_the_home_of_a_user_that_there_is_not_is_one_line() -> None:
    line = refused("inspect", "grid", "--root", "~nosuchuser/grid")
    assert "~nosuchuser/grid: no such user" in line


@pytest.mark.parametrize(
    ("corpus", "entry"),
    [
        *(("grid", f"{key}: 0") for key in ("face_every", "fps", "shard_clips", "sample_rate")),
        *(("grid", f"picture: {sides}") for sides in ([360], [360, 0], [360, 288, 3])),
        *(("lrw", f"fixed_box: {box}") for box in ([59, 95, 195], [195, 95, 59, 231], [0] * 4)),
    ],
)
def test_a_value_that_no_shards_are_made_with_is_one_line(
    tmp_path: Path, corpus: str, entry: str
) -> None:
    words = ["prep", corpus, "--root", tmp_path, "--out", tmp_path, "--dry-run"]
    line = refused("--datasets", write(tmp_path, f"{corpus}: {{{entry}}}"), *words)
    assert f"{corpus}: " in line and ".yaml" in line


def test_crops_that_no_film_holds_are_one_line(tmp_path: Path) -> None:
    own = write(tmp_path, "grid: {crops: {lips: {size: 113}}}")
    (tmp_path / "grid").mkdir()
    words = ["--datasets", own, "prep", "grid", "--root", tmp_path / "grid", "--out", tmp_path]
    assert "lips 121 pixels" in refused(*words, "--dry-run")
    assert "even sides" not in refused(*words, "--dry-run", "--codec", "jpeg")
