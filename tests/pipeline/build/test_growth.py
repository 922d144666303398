"""Ten million clips: the plan is that of the first version, byte for byte of every unit.

The memory of accounting and verifying does not grow with the clips.
"""

import hashlib
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path

import growth
import numpy as np
import pyarrow.parquet as pq
import pytest

from avb.pipeline.build import manifest as account
from avb.pipeline.build import plan as plan_module
from avb.pipeline.build.plan import Plan, lay_out, plan_path, read_plan
from avb.pipeline.config import Crop, Mel
from avb.pipeline.corpora.clip import Clip, Listing
from avb.pipeline.errors import UsageError
from avb.pipeline.settings import Settings
from avb.pipeline.stream import index

SETTINGS = Settings(
    corpus="grid", crops={"lips": Crop(112, 4)}, box="tracked", codec="mp4", crf=17,
    decoder="pyav", mel_dtype="float16", keep_audio=True, face_every=2, shard_clips=16, fps=25,
    sample_rate=16000,
    mel=Mel(80, 160, 640, 800, 1.0, "slaney", "slaney", 0.0, 8000.0, 0.0, 1e-5, 3.0),
)  # fmt: skip


def clips(count: int = 150) -> Iterator[Clip]:
    """Of four groups, with words, times, refusals, and every seventh name met before."""
    rng = random.Random(0)
    for number in range(count):
        group = ("s1", "s10", "s2", "ä-b")[number % 4]
        name = f"clip{number - 4 if number % 7 == 0 and number else number:03d}"
        yield Clip(
            name=name, group=group, source=f"{group}/{name}.mpg", speaker=group[:2],
            label=("yes", None)[number % 2], start=None if number % 3 else number / 7,
            words=[("bin", None, None), ("blue", 0.1, 1 / 3)][: number % 3],
            status="no_speaker" if rng.random() < 0.05 else "", flags=["crlf"][: number % 2],
        )  # fmt: skip


def plan_of(
    folder: Path, listed: Iterator[Clip], twins_kept: bool = False, **given: object
) -> Plan:
    path = folder / "plan.arrow"
    listing = Listing(folder, "made up", listed, ["no", "yes"], twins_kept=twins_kept)
    settings = Settings(**{**{f: getattr(SETTINGS, f) for f in SETTINGS.as_dict()}, **given})
    made = lay_out(listing, settings, path)
    plan = read_plan(path)
    assert plan.units == made.units and list(folder.iterdir()) == [path]
    return made


def rows(plan: Plan) -> list[tuple[str, Clip]]:
    return [row for unit in plan.units for row in plan.rows(unit.number)]


# Over the digests of all units, from the version that held all clips in memory.
PINNED: list[tuple[dict[str, object], list[int], str]] = [
    ({}, [16, 16, 6, 16, 16, 6, 16, 16, 5, 16, 16, 5], "7fd209ed9d75ef40"),
    ({"limit": 40}, [7, 15, 14, 4], "f90df44ffac793f9"),
    ({"speakers": ["s2", "s1"], "limit": 60}, [15, 16, 5, 16, 8], "035306011beb54df"),
    ({"shard_clips": 1000}, [38, 38, 37, 37], "3979b6d9737a6a85"),
]


@pytest.fixture(params=[4096, 64, 1])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many clips of the listing are taken at a time."""
    monkeypatch.setattr(plan_module, "LISTED_ROWS", request.param)


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize(("given", "sizes", "pinned"), PINNED)
def test_a_folder_of_the_first_version_is_not_made_again(
    tmp_path: Path, given: dict[str, object], sizes: list[int], pinned: str
) -> None:
    plan = plan_of(tmp_path, clips(), **given)
    assert [unit.clips for unit in plan.units] == sizes
    digests = "".join(unit.digest for unit in plan.units)
    assert hashlib.sha256(digests.encode()).hexdigest()[:16] == pinned


@pytest.mark.usefixtures("memory")
def test_repeated_keys_are_numbered_in_the_order_of_the_listing(tmp_path: Path) -> None:
    def named(*names: str) -> Iterator[Clip]:
        return (Clip(name, "s1", f"{i}.mpg") for i, name in enumerate(names))

    def sources(plan: Plan) -> dict[str, tuple[str, str]]:
        return {key: (clip.source, clip.status) for key, clip in rows(plan)}

    given = ("a", "b", "a", "c", "a", "b")
    kept = {"s1/a": ("0.mpg", ""), "s1/b": ("1.mpg", ""), "s1/c": ("3.mpg", "")}
    again = {"s1/a~2": "2.mpg", "s1/a~3": "4.mpg", "s1/b~2": "5.mpg"}
    refused = {key: (source, "duplicate") for key, source in again.items()}
    plan = plan_of(tmp_path, named(*given))
    assert sources(plan) == kept | refused
    assert plan.statuses == {"ok": 3, "duplicate": 3} and plan.listed == 6
    twins = sources(plan_of(tmp_path, named(*given), twins_kept=True))
    assert sorted(twins.values()) == [(f"{number}.mpg", "") for number in range(6)]
    assert twins["s1/c"] == ("3.mpg", "") and not twins.keys() & {"s1/a", "s1/b"}
    # A name that is like a number given: all are kept under keys of their own.
    assert set(sources(plan_of(tmp_path, named("a~2", "a", "a")))) == {"s1/a", "s1/a~2", "s1/a~2~2"}


# What is on disk


@pytest.mark.parametrize("content", [b"", b"PAR1", b"ARROW1 and no more", b"PK"])
def test_a_damaged_plan_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plan.arrow"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"plan\.arrow: no plan of avb prep, or damaged .*remove"):
        read_plan(path)


def test_nothing_is_left_of_no_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks() -> Iterator[Clip]:
        yield from clips(5)
        raise UsageError("the listing broke")

    for listed, given, says in (
        (breaks(), {}, "the listing broke"),
        (clips(0), {}, "0 clips listed"),
        (clips(9), {"speakers": ["s7"]}, "no clip of s7; talkers here: s1, s2, ä-"),
    ):
        with pytest.raises(UsageError, match=says):
            plan_of(tmp_path, listed, **given)
        assert not list(tmp_path.iterdir())
    monkeypatch.setattr(plan_module, "Unit", None)  # the file is open by then
    with pytest.raises(TypeError):
        plan_of(tmp_path, clips())
    assert not list(tmp_path.iterdir())


# Everything that follows from a plan, on rows made up


@pytest.fixture(scope="module", params=["lrw", "grid"])
def made_up(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the account of 5,000 clips and no shards."""
    out = tmp_path_factory.mktemp(request.param) / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growth, "TALKERS", 20)  # each has a shard at least
        for name in ("plan", "rows", "missing", "manifest"):
            growth.STEPS[name](out, request.param, 5000)
    return out


def test_the_manifest_has_all_rows_in_the_order_of_the_plan_in_few_groups(made_up: Path) -> None:
    plan = read_plan(plan_path(made_up))
    manifest = pq.ParquetFile(made_up / "manifest.parquet")
    assert manifest.num_row_groups == 1 < len(plan.units)
    keys = manifest.read(["key"])["key"].to_pylist()
    planned = (plan.table(unit.number)["key"].to_pylist() for unit in plan.units)
    assert keys == list(itertools.chain(*planned)) and len(set(keys)) == 5000
    found = json.loads((made_up / "dataset.json").read_text())
    assert found["counts"]["status"] == {"ok": 5000} and len(found["shards"]) == len(plan.units)


def test_a_manifest_is_written_in_groups_and_read_in_pieces(
    made_up: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = read_plan(plan_path(made_up))
    whole = pq.read_table(made_up / "manifest.parquet")
    monkeypatch.setattr(account, "MANIFEST_ROWS", 1000)
    account.write_manifest(made_up, plan)
    manifest = pq.ParquetFile(made_up / "manifest.parquet")
    sizes = [manifest.metadata.row_group(i).num_rows for i in range(manifest.num_row_groups)]
    largest = max(unit.clips for unit in plan.units)
    assert min(sizes[:-1]) >= 1000 and max(sizes) < 1000 + largest
    assert manifest.read().equals(whole)
    monkeypatch.undo()
    account.write_manifest(made_up, plan)
    whole = index.load_index(made_up)
    monkeypatch.setattr("avb.pipeline.stream.columns.PIECE_ROWS", 100)
    pieces = index.load_index(made_up)
    assert pieces.keys.equals(whole.keys)
    for name in ("label_id", "offset", "nbytes", "num_frames", "num_mel", "first_word", "word_s"):
        one, other = getattr(whole, name), getattr(pieces, name)
        assert one.dtype == other.dtype and np.array_equal(one, other, equal_nan=True), name
    for name in ("group", "split", "speaker", "shard", "word"):
        one, other = getattr(whole, name), getattr(pieces, name)
        assert one.names == other.names and np.array_equal(one.codes, other.codes), name
    assert len(whole.word.codes) == {"lrw": 5000, "grid": 30000}[whole.dataset["corpus"]]


def test_clips_are_indexed_by_the_names_of_their_shards(tmp_path: Path) -> None:
    """Groups are planned in the order a, a+b, a-b, but "a+b-000000" comes before "a-000000"."""
    groups = ("a", "a+b", "a-b")
    listed = (Clip(f"c{n}", g, "x", speaker=g.upper(), label="no", words=[(g, 0.0, 0.1 * n)])
              for n in range(40) for g in groups)  # fmt: skip
    plan = plan_of(tmp_path, listed)
    (tmp_path / ".avb" / "rows").mkdir(parents=True)
    for unit in plan.units:
        growth._fabricate(tmp_path, plan, unit)
    account.write_manifest(tmp_path, plan)
    mel = {"n_mels": 80, "hop": 160, "floor": 1e-5, "dtype": "uint8", "scale": 0.1, "offset": -11.5}
    facts = {"corpus": "x", "settings": {"fps": 25, "sample_rate": 16000}, "crops": {}, "mel": mel}
    facts |= {"labels": ["no"], "fingerprint": "f", "title": "x", "labels_sha256": "", "shards": []}
    facts |= {"pixels": {}, "counts": {"listed": 120, "ok": 120, "status": {"ok": 120}}}
    (tmp_path / "dataset.json").write_text(json.dumps(facts))
    found = index.load_index(tmp_path)
    shards = [found.shard[row] for row in range(len(found))]
    assert shards == sorted(shards) != [unit.name for unit in plan.units for _ in range(unit.clips)]
    assert found.shard.names == sorted(found.shard.names)
    assert found.group.names == ["a+b", "a", "a-b"] and found.speaker.names == ["A+B", "A", "A-B"]
    for row in range(len(found)):
        group, name = found.key(row).split("/")
        assert (found.group[row], found.speaker[row]) == (group, group.upper())
        assert found.words(row) == [(group, 0.0, pytest.approx(0.1 * int(name[1:])))]
    place = {key: n for unit in plan.units
             for n, key in enumerate(plan.table(unit.number)["key"].to_pylist())}  # fmt: skip
    assert [o // 32_768 for o in found.offset] == [place[found.key(r)] for r in range(len(found))]


# Memory


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lrw", "grid"])
def test_memory_does_not_grow_with_the_clips(tmp_path: Path, kind: str) -> None:
    few, many = (growth.growth(n, kind, tmp_path) for n in (150_000, 600_000))
    grown = {name: many["peak_mb"][name] - mb for name, mb in few["peak_mb"].items()}
    plan = grown.pop("plan")  # sorted in memory
    assert plan < 450_000 * 900 / 1e6
    assert {name: mb for name, mb in grown.items() if mb > 40 and name != "index"} == {}
    assert grown["index"] < 450_000 * 300 / 1e6
    assert many["plan_mb"] > few["plan_mb"] > 0 and not list(tmp_path.iterdir())
