"""Films of a drawn talker in many containers, and what a damaged one is given to."""

import csv
import math
from pathlib import Path

import numpy as np
from films import ffmpeg

from avb.tools.synth import face
from fuzzing.mutate import Rng, mutate

SIZE, SECONDS = (176, 144), 1.2
#: How each film is written from the same pictures and tone.
FILMS = {
    "h264.mp4": "-c:v libx264 -preset ultrafast -crf 28 -c:a aac",
    "h264.mkv": "-c:v libx264 -preset ultrafast -crf 28 -c:a aac",
    "mpeg4.avi": "-c:v mpeg4 -q:v 6 -c:a pcm_s16le",
    "vp8.webm": "-c:v libvpx -deadline realtime -b:v 200k -c:a libopus",
    "grid.mpg": "-c:v mpeg1video -q:v 6 -c:a mp2 -ar 44100 -ac 2",
    "h264.ts": "-c:v libx264 -preset ultrafast -crf 28 -c:a mp2",
    "mjpeg.mov": "-c:v mjpeg -q:v 8 -c:a pcm_s16le",
    "variable.mp4": "-vf setpts=PTS+0.008*(N-3*floor(N/3))/TB -fps_mode vfr -c:v libx264"
    " -preset ultrafast -crf 28 -c:a aac",
    "sound.wav": "-vn -c:a pcm_s16le",
}
TURNED = "turned.mp4"  # the first one, turned by its metadata alone


def make_films(folder: Path, seed: int = 3) -> list[Path]:
    """All films, each a second of a talker with a tone."""
    count = round(25 * SECONDS)
    opening = 0.5 - 0.5 * np.cos(2 * math.pi * 2 * np.arange(count) / 25)
    track = np.stack([opening, np.zeros(count)], axis=1)
    pictures = face.film(face.Identity.from_seed(seed), track, SIZE, (92, 101), 25, seed)
    data = b"".join(np.ascontiguousarray(picture).tobytes() for picture in pictures)
    given = f"-f rawvideo -pix_fmt bgr24 -s {SIZE[0]}x{SIZE[1]} -r 25 -i pipe: "
    given += f"-f lavfi -i sine=frequency=300:sample_rate=16000:duration={SECONDS}"
    for name, how in FILMS.items():
        words = how.split()
        if "-vn" not in words:
            words += ["-pix_fmt", "yuvj420p" if "mjpeg" in words else "yuv420p"]
        ffmpeg(*given.split(), *words, folder / name, feed=data)
    first = folder / next(iter(FILMS))
    ffmpeg("-display_rotation", "90", "-i", first, "-c", "copy", folder / TURNED)
    return [folder / name for name in (*FILMS, TURNED)]


def damaged_film(rng: Rng, films: list[Path], folder: Path, number: int = 0) -> str:
    """Write a damaged copy of one of the films into a folder; what was done to which."""
    film = films[rng.integers(len(films))]
    others = [path.read_bytes() for path in films]
    done, data = mutate(rng, film.read_bytes(), others)
    (folder / f"{number}{film.suffix}").write_bytes(data)
    return f"{film.name} {done}"


def write_table(folder: Path, names: list[str], words: str = "now two") -> Path:
    """A table of films, for `avb prep table`, of two words, three talkers and three parts."""
    said, parts = words.split(), ["train", "val", "test"]
    with open(folder / "films.csv", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["video", "label", "speaker", "split", "words"])
        for i, name in enumerate(names):
            rows.writerow([name, said[i % 2], f"s{i % 3}", parts[i // 2 % 3], said[i % 2]])
    return folder / "films.csv"
