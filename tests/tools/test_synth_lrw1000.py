"""Promise: a drawn LRW-1000 has the layouts, prints and sounds of the real one."""

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.io import wavfile

from avb.tools.synth import make, raw_lrw1000


def read_rows(info: Path) -> tuple[list[list[str]], list[list[str]]]:
    """Rows of the three split files, and of the audio file."""
    split = [
        line.split(",")
        for name in ("trn", "val", "tst")
        for line in (info / f"{name}_1000.txt").read_text("utf-8-sig").splitlines()
    ]
    audio = (info / "all_audio_video.txt").read_text("utf-8").splitlines()
    return split, [line.split(",") for line in audio]


def read_wav(tree: raw_lrw1000.Tree, audio: str, start: str, end: str) -> Any:
    """The sound of a word, which is as long as its times say."""
    rate, sound = wavfile.read(tree.audio / f"{audio}.wav")
    hundredths = round(float(end) * 100) - round(float(start) * 100) + 40
    assert (rate, sound.dtype, sound.shape) == (16000, "int16", (hundredths * 160,))
    return sound


@pytest.mark.parametrize(
    ("layout", "images", "audio", "info"),
    [
        ("A", "LRW1000_Public/images", "LRW1000_Public/audio", "LRW1000_Public/info"),
        ("B", "CAS-VSR-W1k/lip_images/lip_images", "CAS-VSR-W1k/audio/LRW1000_Public/audio",
         "CAS-VSR-W1k/info"),
    ],
)  # fmt: skip
def test_lrw1000_has_both_exact_layouts(
    tmp_path: Path, layout: str, images: str, audio: str, info: str
) -> None:
    make("lrw1000", tmp_path, clips=6, layout=layout)
    split, joined = read_rows(tmp_path / info)
    assert len(split) == len(joined) == 6 and len({row[0] for row in split}) == 3
    names = ["all_audio_video.txt", *(f"{part}_1000.txt" for part in ("trn", "tst", "val"))]
    assert sorted(p.name for p in (tmp_path / info).iterdir()) == names
    for folder in (tmp_path / images).iterdir():
        assert re.fullmatch("[0-9a-f]{32}", folder.name)
        numbers = sorted(int(p.stem) for p in folder.iterdir())
        assert numbers == list(range(1, len(numbers) + 1))
    assert {p.stem for p in (tmp_path / audio).iterdir()} == {row[1] for row in joined}


def test_lrw1000_prints_times_differently_and_joins_on_hundredths(tmp_path: Path) -> None:
    make("lrw1000", tmp_path, clips=12, odd=True)
    split, joined = read_rows(tmp_path / "LRW1000_Public/info")
    assert all(re.fullmatch(r"\d+\.\d\d", value) for row in split for value in row[3:])
    assert all(not re.search(r"\.\d*0$", value) for row in joined for value in row[4:])

    def key(row: list[str]) -> tuple[str, ...]:
        return (row[0], row[-3], *(str(round(float(value) * 100)) for value in row[-2:]))

    assert sorted(map(key, split)) == sorted(map(key, joined))
    assert {"shi shi"} == {row[3] for row in joined if row[2] in ("事实", "实施")}


def test_each_lrw1000_wav_is_its_word_and_a_fifth_of_a_second_around(drawn_lrw1000: Any) -> None:
    tree = raw_lrw1000.Tree.of(drawn_lrw1000.root, "A")
    odd = {what.split(",")[0] for what in drawn_lrw1000.odd.values()}
    good = [row for row in read_rows(tree.info)[1] if row[0] not in odd]
    assert len(good) == 4
    quiet = 0
    for folder, audio, _, _, start, end in good:
        sound = read_wav(tree, audio, start, end) / 32768
        middle, edges = sound[3200:-3200], np.r_[sound[:160], sound[-160:]]
        assert middle.std() > 0.02
        quiet += middle.std() > 5 * edges.std()
        assert (tree.images / folder / f"{(round(float(end) * 100) + 20) // 4 + 1}.jpg").is_file()
    assert quiet >= 2  # of others, the next word may be near
    sizes = {np.asarray(cv2.imread(str(tree.images / row[0] / "1.jpg"))).shape for row in good}
    assert len(sizes) > 1  # they differ from folder to folder


def test_recut_lrw1000_keeps_sound_and_frames_together(drawn_grid: Any, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="faces need the extra prep")
    summary = make("lrw1000", tmp_path, clips=60, from_grid=drawn_grid.root)
    tree = raw_lrw1000.Tree.of(tmp_path, "A")
    rows = read_rows(tree.info)[1]
    # 4 good and 15 odd clips in; the odd ones with whole film and sound and their own words remain.
    usable = 4 + len({"crlf_align", "short_pause", "large_twin", "damaged"})
    assert len(rows) == summary["clips"] == 6 * usable
    for folder, audio, written, pinyin, start, end in rows:
        assert written == pinyin.upper() and len(list((tree.images / folder).iterdir())) == 75
        read_wav(tree, audio, start, end)
