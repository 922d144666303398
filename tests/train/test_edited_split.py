"""A split of one's own that is edited behind a training: what was learnt is not tested."""

from pathlib import Path

from commands import avb, did, refused

from avb.pipeline.stream.index import Index

OWN = """grid:
  splits: {{own: {{by: speaker, source: me, parts: {{train: [{}], test: [{}], val: [s3]}}}}}}
"""
SMALL = ("--recipe", "tiny", "--set", "shrink=4", "--set", "batch_size=2", "--set", "model.width=4")


def test_a_split_with_other_parts_is_neither_tested_nor_trained_on(
    grid: Index, tmp_path: Path
) -> None:
    """Its name and its source are as they were."""
    own, out = tmp_path / "own.yaml", tmp_path / "run"
    shards = ("--data", grid.folder, "--device", "cpu")
    words = (*shards, "--split", "own", *SMALL, "--out", out)
    own.write_text(OWN.format("s1, s9", "s2"))
    did("--datasets", own, "train", "lip", *words, "--steps", 1)
    own.write_text(OWN.format("s9, s1", "s2"))  # the same
    did("--datasets", own, "eval", "lip", *shards[:2], "--ckpt", out, "--limit", 1)
    own.write_text(OWN.format("s2", "s1"))
    line = refused("--datasets", own, "eval", "lip", *shards[:2], "--ckpt", out)
    assert "split own has other parts now" in line
    code, _, text = avb("--datasets", own, "train", "lip", *words, "--steps", 2, "--resume")
    assert code == 2 and "trained on other clips (rule differ)" in text.splitlines()[-1]
