"""How adapters read a film."""

from pathlib import Path

from avb.pipeline.clip.decode import stream_video
from avb.pipeline.clip.media import Media
from avb.pipeline.settings import Settings


def load_film(
    path: Path, settings: Settings, start_s: float | None = None, end_s: float | None = None,
    lag_s: float = 0.0,
) -> Media:  # fmt: skip
    """A film, or a span of it, as the settings want it read."""
    return stream_video(
        path, settings.fps, start_s, end_s, settings.decoder, settings.max_seconds,
        "optional" if settings.audio == "optional" else "required", lag_s,
    )  # fmt: skip
