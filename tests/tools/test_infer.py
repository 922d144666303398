"""Promise: any film is read as its corpus would have been: crops(infer) = crops(prep), T = 25 * s.

The films are drawn talkers, re-encoded by the ffmpeg program; the networks are small and random.
"""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from networks import save_model
from prepared import draw
from talkers import VERSIONS, cut, encode, ffmpeg, talker, write

from avb.pipeline.build.process import prepare_clip
from avb.pipeline.clip import follow
from avb.pipeline.clip.status import Refused
from avb.pipeline.clip.stopwatch import Clock
from avb.pipeline.config import load_corpora
from avb.pipeline.corpora import adapter
from avb.pipeline.settings import settings_for
from avb.tools.infer import crops
from avb.tools.infer.model import Trained, load_trained
from avb.tools.infer.video import BadVideo, pictures, probe
from avb.tools.synth import face

pytest.importorskip("ai_edge_litert", reason="faces are tracked with the extra prep")

OF_A_FILM = "29.97", "30", "50", "60", "variable", "turned", "mirrored", "160x120"
OF_A_FILM += ("turned by metadata",)

# Films


@pytest.fixture(scope="session")
def wanted(base: Path, checkpoints: dict[str, Path]) -> np.ndarray:
    """The crops of `base`."""
    return cut(base, load_trained("lip", checkpoints["sentences"]), every=5)[1]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_of_a_film_gives_its_crops(
    base: Path, wanted: np.ndarray, tmp_path: Path, models: dict[str, Trained], version: str
) -> None:
    path = VERSIONS[version](base, tmp_path / "film.mp4")
    cutter, found = cut(path, models["sentences"], every=5)
    assert len(found) / 25 == pytest.approx(cutter.video.duration_s, abs=0.04)
    assert len(found) == 50 or (version == "variable" and len(found) == 49)
    wanted = wanted[: len(found)]
    assert cutter.seen.all() and cutter.faces == 1
    assert cutter.turns == {"turned": 1, "upside": 2}.get(version, 0)
    assert version != "turned by metadata" or cutter.size == (288, 360)
    if version == "mirrored":
        found, mirrored = found[..., ::-1], found
        assert off(found, wanted) < 0.7 * off(mirrored, wanted)
    assert same_crops(found, wanted)
    assert not same_crops(np.roll(found, 3, axis=2), wanted)
    assert not same_crops(np.roll(found, 3, axis=0), wanted)


def off(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found.mean(axis=0) - wanted.mean(axis=0)).mean())


def same_crops(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether crops show the same place to 2 pixels, and the mouth opens at the same times."""
    means = [np.ascontiguousarray(c.mean(axis=0), np.float32) for c in (found, wanted)]
    window = cv2.createHanningWindow((120, 120), cv2.CV_32F)
    shift, _ = cv2.phaseCorrelate(means[0], means[1], window)
    mouths = [c[:, 55:90, 40:80].mean(axis=(1, 2)) for c in (found, wanted)]
    return bool(np.hypot(*shift) < 2 and np.corrcoef(mouths)[0, 1] > 0.8)


@pytest.mark.parametrize("smaller", [42, 30])
def test_of_two_faces_the_larger_or_another(
    tmp_path: Path, models: dict[str, Trained], smaller: int
) -> None:
    left, right = talker(3, 30, (320, 288), smaller), talker(5, 30, (320, 288), 56)
    two = write(tmp_path / "two.mp4", list(map(np.hstack, zip(left, right, strict=True))))
    centres = []
    for which in (1, 2):
        cutter, _ = cut(two, models["sentences"], which=which)
        assert cutter.faces == 2
        centres.append(cutter.boxes[:, [0, 2]].mean())
    assert centres[0] == pytest.approx(484, abs=12) and centres[1] == pytest.approx(164, abs=12)
    with pytest.raises(BadVideo, match="no face number 3; 2 found"):
        cut(two, models["sentences"], which=3)


def test_a_face_that_leaves_is_noticed_and_one_that_comes_is_taken(
    tmp_path: Path, models: dict[str, Trained]
) -> None:
    here = talker(3, 50, (360, 288), 50)
    empty = [face.backdrop(face.Identity.from_seed(3), (360, 288))] * 75
    path = write(tmp_path / "leaves.mp4", here + empty + talker(5, 50, (360, 288), 44))
    cutter, _ = cut(path, models["sentences"], every=5)
    [(start, end)] = crops.absent_spans(cutter.seen)
    assert start == pytest.approx(2.0, abs=0.6) and end == pytest.approx(5.0, abs=0.6)
    sides = cutter.boxes[:, 2] - cutter.boxes[:, 0]
    assert sides[:50].mean() / sides[150:].mean() == pytest.approx(50 / 44, rel=0.05)


# One seam with preparation


@pytest.mark.parametrize("corpus", ["lrw", "grid"])
def test_a_clip_of_the_corpus_gets_the_crops_of_prep_to_the_last_bit(
    corpus: str, tmp_path: Path, models: dict[str, Trained]
) -> None:
    trained = models["lip" if corpus == "lrw" else "sentences"]
    compare_with_prep(corpus, draw(corpus, tmp_path / corpus, 1), trained, 1)


def compare_with_prep(corpus: str, root: Path, trained: Trained, most: int) -> None:
    entry = load_corpora()[corpus]
    settings = settings_for(corpus, entry)
    kind = trained.recipe.crop
    compared = 0
    for clip in adapter(corpus).discover(root, entry).clips:
        try:
            assert not clip.status
            done = prepare_clip(clip, root, settings, Clock())
        except (Refused, AssertionError):
            continue
        cutter, found = cut(root / clip.source, trained)
        assert np.array_equal(found, done.crops[kind]), clip.source
        assert cutter.box == settings.box
        compared += 1
        if compared == most:
            break
    assert compared


def test_a_fixed_box_keeps_its_scale_elsewhere(tmp_path: Path, models: dict[str, Trained]) -> None:
    """LRW's box shows as much of a face in any film as it does in LRW's own pictures."""
    frames = talker(3, 29, (256, 256), 60)
    own = write(tmp_path / "own.mp4", frames)
    cutter, wanted = cut(own, models["lip"])
    assert cutter.box == "fixed" and cutter.boxes[0].tolist() == [59, 95, 195, 231]
    near, _ = cut(own, models["lip"], box="tracked")
    moved = ffmpeg.input(own).video.filter("scale", 512, 512).filter("pad", 900, 700, 300, 100)
    far, found = cut(encode([moved], tmp_path / "far.mp4"), models["lip"])
    assert far.box == "tracked"
    there = (far.boxes - [300, 100, 300, 100]) / 2
    assert np.abs(there - near.boxes).max() < 2.5
    save_model(tmp_path / "mouths.pt", "lip", "lrw1000")  # whose clips no film is
    assert cut(own, load_trained("lip", tmp_path / "mouths.pt"))[0].box == "tracked"
    # The drawn face is about as large as LRW's mean face, so the box is about LRW's.
    assert near.boxes[0, 2] - near.boxes[0, 0] == pytest.approx(136, rel=0.15)
    with pytest.raises(BadVideo):
        cut(encode([ffmpeg.input("testsrc2=s=64x64:d=1", f="lavfi")], tmp_path / "no.mp4"),
            models["lip"])  # fmt: skip


# Long films in little memory


def test_a_long_film_is_followed_in_blocks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, models: dict[str, Trained]
) -> None:
    path = write(tmp_path / "long.mp4", talker(3, 200, (180, 144), 26))
    whole, _ = cut(path, models["sentences"], every=5)
    monkeypatch.setattr(follow, "MOST_HELD", 50)
    inside, most = 0, 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal inside, most
        for picture in pictures(probe(str(path))):
            inside += 1
            most = max(most, inside)
            yield picture

    boxes = []
    follower = follow.Follower(5, {"lips": follow.Frame.of("lips")})
    for number, block in enumerate(follower.follow(counted())):
        boxes.append(block.boxes["lips"])
        inside -= len(block.frames)
        assert number or len(block.frames) == follow.BLOCK
    assert most <= 50 + follow.BLOCK + 1
    assert np.abs(np.concatenate(boxes) - whole.boxes).max() < 1.5


# At length


@pytest.mark.slow
@pytest.mark.parametrize("version", [*OF_A_FILM, "4K", "two side by side"])
def test_every_version_of_a_real_film_gives_its_crops(
    real_grid: Path, tmp_path: Path, models: dict[str, Trained], version: str
) -> None:
    """That `prep` cuts the mouth out of these is seen by another network in test_real_grid.py."""
    films = sorted(real_grid.glob("s*/video/*.mp*g*"))[::300]
    for path in films:
        wanted, film = cut(path, models["sentences"])[1], tmp_path / f"{path.stem}.mp4"
        source = ffmpeg.input(str(path)).video
        if version == "4K":
            encode([source.filter("scale", 3840, 2160)], film)
        elif version == "two side by side":
            other = ffmpeg.input(str(films[0])).video.filter("scale", 300, 240)
            other = other.filter("pad", 300, 288, 0, 24)
            encode([ffmpeg.filter([source, other], "hstack")], film)
        else:
            VERSIONS[version](path, film)
        found = cut(film, models["sentences"])[1][..., :: -1 if version == "mirrored" else 1]
        assert len(wanted) - len(found) in (0, 1)
        assert same_crops(found, wanted[: len(found)]), path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lips", "face"])
def test_real_clips_get_the_crops_of_prep_exactly(
    real_grid: Path, tmp_path: Path, kind: str
) -> None:
    save_model(tmp_path / "lip.pt", "lip", "grid", kind)
    compare_with_prep("grid", real_grid, load_trained("lip", tmp_path / "lip.pt"), 12)
