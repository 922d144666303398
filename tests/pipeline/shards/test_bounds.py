"""Promise: what comes from outside is bounded before it is unpacked; what is too much is one line.

Each file here is small. Unpacked as it asks, it would take from hundreds of megabytes to terabytes.
"""

import io
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from prepared import set_column

from avb.pipeline.build.unit import row_schema
from avb.pipeline.clip.codec import decode_video, encode_video
from avb.pipeline.clip.flac import decode_flac
from avb.pipeline.clip.npy import parse_npy
from avb.pipeline.corpora.table import LONGEST_WORDS
from avb.pipeline.errors import UsageError, shown
from avb.pipeline.parse import parse_json, parse_yaml, read_json, read_yaml
from avb.pipeline.shards.dataset import can_hold, read_manifest
from avb.pipeline.stream.index import load_index
from avb.tools.bench.baseline_webdataset import encode_mp4

MB = 1 << 20


@contextmanager
def at_most(megabytes: int) -> Iterator[None]:
    """See that this process never holds so much more than before."""

    def status(name: str) -> int:
        return int(re.findall(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[0])

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = status("VmRSS")
    yield
    grown = (status("VmHWM") - before) >> 10
    assert grown <= megabytes, f"{grown} MB"


def flac(seconds: int, layout: str = "mono", rate: int = 16_000) -> bytes:
    """Silence, 12 bytes for each 65,535 samples."""
    file = io.BytesIO()
    with av.open(file, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=rate, layout=layout, format="s16")
        stream.codec_context.options = {"frame_size": "65535"}
        silence = np.zeros((1, 60 * rate * len(stream.layout.channels)), np.int16)
        for _ in range(seconds // 60):
            frame = av.AudioFrame.from_ndarray(silence, format="s16", layout=layout)
            frame.sample_rate = rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def test_sound_stops_where_it_is_longer_than_its_clip() -> None:
    data = flac(1800)
    assert len(data) < 100_000
    with at_most(50), pytest.raises(ValueError, match="sound has more than 48000 samples"):
        decode_flac(data, 48_000)
    with pytest.raises(ValueError, match="no 16-bit sound"):
        decode_flac(flac(60, "stereo"))


def test_a_picture_inside_a_sound_is_not_unpacked() -> None:
    ok, png = cv2.imencode(".png", np.zeros((12_000, 12_000), np.uint8))
    kind = b"image/png"
    picture = struct.pack(">II", 3, len(kind)) + kind + struct.pack(">6I", 0, 0, 0, 0, 0, len(png))
    data, block = flac(60), picture + png.tobytes()
    head = bytes([6]) + len(block).to_bytes(3, "big")
    with at_most(50):
        assert len(decode_flac(data[:42] + head + block + data[42:])) == 60 * 16_000


def grey(side: int, count: int, form: str) -> bytes:
    """Grey pictures, as `codec` writes them or as an ordinary encoder does."""
    frames = np.full((count, side, side), 128, np.uint8)
    return encode_mp4(frames) if form == "other.mp4" else encode_video(frames, form)[1]


@pytest.mark.parametrize("form", ["mp4", "other.mp4", "h264"])
@pytest.mark.parametrize(("side", "count"), [(1024, 60), (64, 4000)])
def test_video_is_refused_before_more_than_its_shape_is_decoded(
    form: str, side: int, count: int
) -> None:
    data, out = grey(side, count, form), np.empty((29, 64, 64), np.uint8)
    decode_video(grey(64, 29, form), form[-4:].strip("."), out)
    with at_most(16), pytest.raises(ValueError, match="expected 29 frames of 64 x 64"):
        decode_video(data, form[-4:].strip("."), out)


def test_video_of_no_known_shape_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avb.pipeline.clip.codec.MOST_BYTES", 16 * MB)
    data = grey(512, 400, "mp4")
    with at_most(64), pytest.raises(ValueError, match="more than 16 MB"):
        decode_video(data, "mp4")


def test_a_picture_of_many_is_refused_by_its_size() -> None:
    ok, data = cv2.imencode(".jpg", np.zeros((20_000, 20_000), np.uint8))
    with at_most(50), pytest.raises(ValueError, match="not made of frames"):
        decode_video(data.tobytes(), "jpg", np.empty((29, 64, 64), np.uint8))


def box(name: bytes, *content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, content)), name) + b"".join(content)


def table(data: bytes, name: bytes, content: bytes) -> bytes:
    """A movie with another table; those behind it have their place in a box that holds the rest."""
    at = data.index(name) - 4
    size = struct.unpack_from(">I", data, at)[0]
    return data[:at] + box(name, content).ljust(size, b"\0")[:size] + data[at + size :]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (b"stsz", struct.pack(">III", 0, 1, 10**8), "announces 100000000 of stsz"),
        (b"stts", struct.pack(">IIII", 0, 1, 10**9, 512), "announces 1000000000 of stts"),
        (b"elst", struct.pack(">II", 0, 500), "announces 500 of elst"),
        (b"udta", box(b"stsz", struct.pack(">III", 0, 1, 10**8)), "announces 100000000 of stsz"),
        (b"udta", box(b"moof", bytes(8)), "in fragments"),
        (b"udta", box(b"cmov", bytes(8)), "packed index"),
    ],
)
def test_a_movie_announces_no_more_than_it_holds(name: bytes, content: bytes, said: str) -> None:
    data = table(grey(64, 29, "other.mp4"), name, content)
    with at_most(16), pytest.raises(ValueError, match=said):
        decode_video(data, "mp4", np.empty((29, 64, 64), np.uint8))


def saved(array: np.ndarray, old: bytes = b"", new: bytes = b"") -> bytes:
    """An array as numpy writes it, with something in its header replaced."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue().replace(old, new)


def headed(shape: str) -> bytes:
    text = f"{{'descr': '<f2', 'fortran_order': False, 'shape': ({shape}), }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(40)


GOOD = np.zeros((4, 5), np.float16)
HEADS = {
    "npy": [
        *map(headed, ["-" * 9000 + "1,", "'a'+" * 2000 + "'a',", "9" * 5000 + ",", "(" * 5000,
                      "1000000000000, 1000000000000", "-4, 5", "4, " * 500 + "5", "4.0, 5",
                      "4, True"]),
        saved(GOOD, b"'shape'", b"'shape("),  # numpy: tokenize.TokenError
        saved(GOOD, b"'shape'", b"b'shape"),  # TypeError
        saved(GOOD, b"(4, 5)", b"(04,5)"),  # SyntaxError
        saved(GOOD, b"(4, 5)", b"(4, 9)"), saved(GOOD, b"(4, 5)", b"(4,-5)"),
    ],
    "expected float16 or uint8": [saved(np.array([{"a": 1}], object)), saved(np.zeros(3))],
    "not a .npy": [b"\x80\x04K\x01."],
}  # fmt: skip


@pytest.mark.parametrize(
    ("said", "data"), [(said, data) for said, heads in HEADS.items() for data in heads]
)
def test_a_header_of_an_array_is_not_evaluated(said: str, data: bytes) -> None:
    assert parse_npy(memoryview(saved(GOOD))).shape == (4, 5)
    with at_most(16), pytest.raises(ValueError, match=said):
        parse_npy(memoryview(data))


def test_a_value_that_is_told_of_is_short() -> None:
    nested = {f"clips{i}": {f"figure{i}": {"low": 1 / 3, "high": 2 / 3}} for i in range(9)}
    assert len(shown(nested)) < 210
    assert shown({"a": [1]}) == "{'a': [1]}"


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("text", [DEEP, '{"a":' * 60 + "1" + "}" * 60, '{"a": ' + "9" * 5000 + "}"])
def test_json_that_is_too_deep_is_a_value_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text)
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError):
        read_json(tmp_path / "x.json")
    assert parse_json("[" * 20 + "]" * 20)


@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "NaN", "1e999", "-1e999"])
def test_a_number_that_json_has_not_is_refused(number: str) -> None:
    with pytest.raises(ValueError, match=f"'{number}' is no number of JSON"):
        parse_json(f'{{"step": {number}}}')
    assert parse_json("[1e300, -2.5, 3]") == [1e300, -2.5, 3]


def test_json_with_half_a_letter_is_none() -> None:
    assert parse_json('["\\uD83D\\ude00"]') == parse_json('["\N{GRINNING FACE}"]'.encode())
    for text in ('["\\ud800"]', '{"\\uDE00": 1}'):
        for given in (text, text.encode()):
            with pytest.raises(ValueError, match="surrogates"):
                parse_json(given)
    for text in ('a: "\\ud800"', 'a: "\\U0000DE00"'):
        with pytest.raises(yaml.YAMLError, match="surrogates"):
            parse_yaml(text)


def test_json_that_is_too_large_is_not_parsed(tmp_path: Path) -> None:
    with open(tmp_path / "x.json", "wb") as file:
        file.truncate(1 << 34)
    with at_most(80), pytest.raises(ValueError, match="more than 32 MB"):
        read_json(tmp_path / "x.json")


LAUGHS = "a: &a [1]\n" + "".join(f"b{i}: &b{i} [{f'*b{i - 1}, ' * 3}1]\n" for i in range(1, 40))


@pytest.mark.parametrize(
    "text",
    ["[" * 1500 + "]" * 1500, LAUGHS.replace("*b0", "*a"), "&a [*a]", "a: 2001-99-99",
     "a: !!bool x", "a: !!timestamp x", "a: " + "9" * 5000, "? [a]\n: b"],
)  # fmt: skip
def test_yaml_that_is_none_is_a_usage_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        parse_yaml(text)
    (tmp_path / "x.yaml").write_text(text)
    with at_most(100), pytest.raises(UsageError, match="x.yaml: not valid YAML") as caught:
        read_yaml(tmp_path / "x.yaml")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("name", "value", "times"),
    [
        ("key", "x" * 10**6, 20),  # a text that stands in every row
        ("group", "x" * 10**5, 200),
        ("words", [{"word": "y" * 10**6, "start": 0.0, "end": 1.0}], 20),
        ("words", [{"word": "y", "start": 0.0, "end": 1.0}] * 5000, 20),
        ("offset", 0, 30_000),  # equal rows
    ],
)
def test_a_manifest_of_equal_rows_is_not_unpacked(
    copy: Path, name: str, value: Any, times: int
) -> None:
    path = copy / "manifest.parquet"
    table = pq.read_table(path).slice(0, 1)
    column = pa.array([value], table[name].type)
    table = table.set_column(table.column_names.index(name), name, column)
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        part = table.take(pa.array(np.zeros(times, np.int64)))
        for _ in range(50):
            writer.write_table(part)
    assert path.stat().st_size < 4 * MB
    with (
        at_most(600),
        pytest.raises(UsageError, match=r"manifest.parquet: .*(bytes of text|values)"),
    ):
        load_index(copy)
    with at_most(600), pytest.raises(UsageError, match="damaged"):
        for _ in read_manifest(copy, ["status", name]):
            pass


def test_long_and_many_texts_are_read_as_they_are(copy: Path) -> None:
    """Of several row groups, with dictionaries that differ, and in more than a page."""
    path = copy / "manifest.parquet"
    words = [[{"word": f"{i} {'x' * 900}", "start": 0.0, "end": 1.0}] for i in range(13)]
    set_column(copy, "words", words)
    table = pq.read_table(path)
    pq.write_table(table, path, row_group_size=3, dictionary_pagesize_limit=1000)
    batches = list(read_manifest(copy, ["words", "key", "flags"]))
    assert [row for batch in batches for row in batch["words"].to_pylist()] == words
    assert [k for b in batches for k in b["key"].to_pylist()] == table["key"].to_pylist()
    assert batches[0].schema.field("words").type == table["words"].type


@pytest.mark.parametrize(("frames", "fits"), [(60_000, True), (70_000, False)])
def test_a_row_asks_for_no_more_pictures_than_fit(frames: int, fits: bool) -> None:
    record = {
        "settings": {"fps": 25, "sample_rate": 16_000}, "crops": {"lips": {"stored": 90}},
        "mel": {"n_mels": 80},
    }  # fmt: skip
    assert can_hold(record, 10**9, frames, 4 * frames) is fits
    endless = 2**62 // 90**2 * 4 + np.arange(4)  # times 90 x 90 little more than 2^64
    assert not can_hold(record, np.array([2**62]), endless, 0).any()
    assert not can_hold(record, 80 * 399, 100, 400)  # a byte for each number of the mel
    sound = record | {"settings": {"fps": 1, "sample_rate": 1_000_000, "keep_audio": True}}
    assert not can_hold(sound, 10**9, 200, 800)


def test_rows_with_as_many_words_as_a_table_may_have_are_read(tmp_path: Path) -> None:
    said = [f"word{number % 7919}" for number in range(LONGEST_WORDS // 8)]
    assert len("".join(said)) <= LONGEST_WORDS
    words = [{"word": word, "start": None, "end": None} for word in said]
    rows = [{"key": f"all/{number}", "words": words} for number in range(160)]
    schema = pa.schema([row_schema().field(name) for name in ("key", "words")])
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "manifest.parquet")
    [batch] = read_manifest(tmp_path, ["key", "words"])
    assert batch["words"][159].as_py() == words
