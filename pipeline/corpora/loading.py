"""What adapters share in reading a clip: its film, or its pictures and its sound as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avb.pipeline.clip.decode import stream_video
from avb.pipeline.clip.image_folder import read_pictures
from avb.pipeline.clip.media import Media
from avb.pipeline.settings import Settings


def load_film(
    path: Path, settings: Settings, start_s: float | None = None, end_s: float | None = None
) -> Media:
    """A film, or a span of it, as the settings want it read."""
    return stream_video(
        path, settings.fps, start_s, end_s, settings.decoder, settings.max_seconds,
        "optional" if settings.audio == "optional" else "required",
    )  # fmt: skip


def load_pictures(paths: Sequence[Path]) -> Media:
    """Picture files, gaps filled and flagged (or Refused: `missing_frames`); no sound yet."""
    frames, filled = read_pictures(paths)
    return Media(frames, flags={"filled_frames"} if filled else set())
