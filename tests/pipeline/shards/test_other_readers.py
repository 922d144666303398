"""Promise: others read the shards too, whatever is not known of the first clips.

For every order of clips: Hugging Face `datasets`, webdataset's decoders and `tar` give what avb
stored. Shards of format 1, with nulls, stay readable here.
"""

import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc
import pytest
from films import write_film
from importers import Importer, importer
from prepared import rewrite

from avb.pipeline.errors import UsageError
from avb.pipeline.shards.metadata import read_facts, write_facts
from avb.pipeline.shards.verify import verify
from avb.pipeline.stream.index import load_index
from avb.pipeline.stream.stream import Stream

FACTS: dict[str, Any] = {
    "key": "all/a", "split": None, "speaker": None, "label": None, "label_id": None,
    "words": [], "boundary": None, "flags": [], "duration": 1.0, "crop_boxes": {"lips": [[0.0]]},
}  # fmt: skip
KNOWN = FACTS | {
    "split": "train", "speaker": "s1", "label": "oh", "label_id": 0, "boundary": (0, 0.5),
    "words": [("oh", 0, 0.5), ("yes", None, None)], "flags": ["crlf", "short_pause"],
}  # fmt: skip


@pytest.mark.parametrize("facts", [FACTS, KNOWN])
def test_what_is_known_comes_back_and_nothing_is_null(facts: dict[str, Any]) -> None:
    data = write_facts(facts)
    stored = json.loads(data)
    assert _kinds(stored) == _kinds(json.loads(write_facts(KNOWN | {"words": KNOWN["words"][:1]})))
    back = read_facts(data)
    boundary = list(facts["boundary"] or (0.0, 1.0))
    assert back == facts | {"boundary": boundary}


def _kinds(value: Any) -> Any:
    """Types by place, as Arrow would take them; a list has that of all its items."""
    if isinstance(value, dict):
        return {name: _kinds(item) for name, item in value.items()}
    if isinstance(value, list):
        kinds = [_kinds(item) for item in value]
        assert kinds and all(kind == kinds[0] for kind in kinds)
        return [kinds[0]]
    assert value is not None
    return type(value)


def test_the_member_of_format_1_reads_the_same() -> None:
    old = {**KNOWN, "words": [list(word) for word in KNOWN["words"]], "boundary": [0, 0.5]}
    assert read_facts(json.dumps(old).encode()) == KNOWN | {"boundary": [0, 0.5]}
    assert read_facts(json.dumps(FACTS).encode()) == FACTS


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"3", b'{"words": 3}', b'{"words": [[1]]}', b'{"words": [{}]}',
             b'{"words": [{"word": "a", "start": null, "end": 1}]}', b"[" * 100_000],
)  # fmt: skip
def test_a_member_of_no_format_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        read_facts(data)


# Shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards; of the six clips in the first nothing is known, of those in the others all."""
    folder = tmp_path_factory.mktemp("mine")
    pictures = [np.full((48, 64), level, np.uint8) for level in range(30)]
    sound = np.random.default_rng(0).uniform(-0.1, 0.1, 19200)
    write_film(folder / "film.mp4", pictures, np.arange(30) / 25, sound)
    films = [shutil.copy(folder / "film.mp4", folder / f"{n}.mp4").name for n in range(9)]
    one, two = '"[[""oh"", 0.1, 0.5]]"', '"[[""oh"", 0.1, 0.5], [""yes"", null, null]]"'
    rows = ["video,label,speaker,split,words,end", *[f"{film},,,,," for film in films[:6]]]
    parts = zip(films[6:], ("", "", "train"), (two, two, one), strict=True)
    rows += [f"{film},oh,s1,{split},{words},9" for film, split, words in parts]
    (folder / "mine.csv").write_text("\n".join(rows))
    for keep_audio, out in ((True, "out"), (False, "mute")):
        _importer(folder, keep_audio).prep(folder / out)
    return folder / "out" / "mine"


def _importer(folder: Path, keep_audio: bool) -> Importer:
    table = folder / "mine.csv"
    return importer("table", table, box="whole", crop="lips", keep_audio=keep_audio)


WORDS = [{"word": "oh", "start": 0.1, "end": 0.5}, {"word": "yes", "start": -1.0, "end": -1.0}]


def _check(found: list[dict[str, Any]], folder: Path) -> None:
    """The members `json` of all clips, as another library gave them."""
    index = load_index(folder)
    assert [facts["key"] for facts in found] == index.keys.to_pylist()
    assert [facts["label"] for facts in found] == [""] * 6 + ["oh"] * 3
    assert [facts["speaker"] for facts in found] == [""] * 6 + ["s1"] * 3
    assert [facts["split"] for facts in found] == [""] * 8 + ["train"]
    assert [facts["flags"] for facts in found] == [""] * 6 + ["span_clamped"] * 3
    assert [facts["words"] for facts in found[6:]] == [WORDS, WORDS, WORDS[:1]]
    assert all((facts["n_frames"], facts["n_mel"]) == (30, 120) for facts in found)
    assert [facts["boundary"] for facts in found] == [[0.0, 1.2]] * 8 + [[0.1, 0.5]]


def _tars(folder: Path) -> list[str]:
    return [str(folder / f"{group}-000000.tar") for group in ("all", "s1", "train")]


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_hugging_face_datasets_reads_them(shards: Path, tmp_path: Path, streaming: bool) -> None:
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets, of the extra dev")
    mute = shards.parents[1] / "mute" / "mine"

    def load(folder: Path, features: Any = None) -> Any:
        return datasets.load_dataset(
            "webdataset", data_files={"train": _tars(folder)}, split="train",
            streaming=streaming, features=features, cache_dir=str(tmp_path),
        )  # fmt: skip

    found = load(mute).cast_column(
        "lips.mp4", datasets.Video(decode=False)
    )  # or it asks torchcodec
    _check([sample["json"] for sample in found], shards)
    # Sound asks for torchcodec even as bytes; told what they are, it does not.
    kinds = {**found.features, **dict.fromkeys(("lips.mp4", "flac"), datasets.Value("binary"))}
    samples = list(load(shards, datasets.Features(kinds)))
    _check([sample["json"] for sample in samples], shards)
    with tarfile.open(_tars(shards)[2]) as tar:
        stored = {m.name.split(".", 1)[1]: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
    assert all(samples[8][name] == stored[name] for name in ("flac", "lips.mp4"))
    mel = np.load(io.BytesIO(stored["mel.npy"]))
    assert np.array_equal(np.array(samples[8]["mel.npy"], np.float16), mel)


def test_webdataset_decodes_them_itself(shards: Path) -> None:
    import webdataset

    samples = list(webdataset.WebDataset(_tars(shards), shardshuffle=False).decode())
    _check([sample["json"] for sample in samples], shards)
    assert {sample["mel.npy"].shape for sample in samples} == {(80, 120)}
    assert all(sample["__key__"] == sample["json"]["key"] for sample in samples)
    assert all({"lips.mp4", "flac"} <= sample.keys() for sample in samples)


def test_tar_unpacks_them(shards: Path, tmp_path: Path) -> None:
    for path in _tars(shards):
        subprocess.run(["tar", "xf", path, "-C", tmp_path], check=True)
    found = {facts["key"]: facts for member in tmp_path.rglob("*.json")
             for facts in [json.loads(member.read_text())]}  # fmt: skip
    _check([found[key] for key in load_index(shards).keys.to_pylist()], shards)


def test_shards_of_format_1_are_read_verified_and_left_alone(shards: Path, tmp_path: Path) -> None:
    old = _in_format_1(shards, tmp_path / "out" / "mine")
    assert verify(old).faults == []
    old_index, index = load_index(old), load_index(shards)
    for row in range(len(index)):
        assert old_index.words(row) == index.words(row)
    batches = [next(iter(Stream(each, batch_size=4, once=True))) for each in (old_index, index)]
    assert batches[0].keys == batches[1].keys
    assert batches[0].video["lips"].equal(batches[1].video["lips"])
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="shards of format 1, now it is 2: readers take them"):
        _importer(shards.parents[1], keep_audio=True).prep(tmp_path / "out")
    assert before == {path: path.read_bytes() for path in before}


def _in_format_1(folder: Path, out: Path) -> Path:
    """The same clips as version 1 left them: nulls, words as lists, no format in the plan."""
    (out / ".avb").mkdir(parents=True)

    def older(row: dict[str, Any], members: dict[str, bytes]) -> None:
        facts = read_facts(members["json"])
        if not facts["words"]:
            facts["boundary"] = None
        members["json"] = json.dumps(facts).encode()

    rewrite(folder, out, older)
    record = json.loads((out / "dataset.json").read_text())
    (out / "dataset.json").write_text(json.dumps(record | {"schema": 1}))
    with pa.OSFile(str(folder / ".avb" / "plan.arrow")) as file:
        reader = ipc.open_file(file)
        last = reader.num_record_batches - 1
        batches = [reader.get_batch(i) for i in range(last)]
        end = reader.get_batch_with_custom_metadata(last)
    head = json.loads(end.custom_metadata[b"avb"])
    assert head.pop("schema") == 2
    with ipc.new_file(str(out / ".avb" / "plan.arrow"), reader.schema) as plan:
        for batch in batches:
            plan.write_batch(batch)
        plan.write_batch(end.batch, {"avb": json.dumps(head)})
    return out
