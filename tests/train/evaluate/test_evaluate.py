"""Evaluation: each sample once, means from the per-clip values, beside ceiling and floors."""

import importlib.metadata
import importlib.util
import json
import wave
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import numpy as np
import pytest
import torch
from commands import fault
from networks import changed, evaluated, save_vocoder, trained

from avb.pipeline.config import load_corpora
from avb.pipeline.stream.index import Index
from avb.train import checkpoint
from avb.train.evaluate import speech as eval_l2s
from avb.train.evaluate import stored_mels
from avb.train.evaluate.metrics import bounds, speech
from avb.train.evaluate.metrics.speech import score_clip, summarise
from avb.train.evaluate.wav import WavFolder
from avb.train.evaluate.words import recognisers, training
from avb.train.evaluate.words import trained as recogniser
from avb.train.evaluate.words.grammar import word_error_rate
from avb.train.evaluate.words.trained import Training, transcribe
from avb.train.kept import fingerprint
from avb.train.split import split_rows

#: It has no wheel for every Python.
SPHINX = importlib.util.find_spec("pocketsphinx") is not None


@pytest.fixture(scope="module", autouse=True)
def few_rounds() -> Any:
    """Griffin-Lim in a tenth of its time: no test here looks at what the rest of it gains."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eval_l2s, "GL_ITERATIONS", 6)
        yield


@pytest.fixture(scope="module")
def speech_run(grid: Index, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the split by talker: train s1 s3, val s9, test s2; two clips each."""
    pytest.importorskip("pystoi", reason="speech is measured with the extra eval")
    return trained("l2s", grid, tmp_path_factory.mktemp("l2s"), split="vcagan-16-7-10")


def test_speech_stands_beside_its_ceiling_and_floors(grid: Index, speech_run: Path) -> None:
    record = evaluated("l2s", speech_run, grid, "train", limit=2)
    estoi = {"model": record["metrics"]["estoi"]["value"]}
    estoi |= {k: v["estoi"]["value"] for k, v in record["floors"].items()}
    ceiling = record["ceiling"]["estoi"]["value"]
    assert ceiling > 0.6 and all(v < ceiling - 0.2 for v in estoi.values())
    assert [clip["key"] for clip in record["clips"]] and record["flags"]["limit"] == 2
    assert record["flags"]["versions"]["pystoi"] == importlib.metadata.version("pystoi")


@pytest.mark.parametrize(
    ("windows", "frames", "rule"), [("cut", 70, "70of75"), ("covered", 75, "min")]
)
def test_the_model_may_see_forty_frames_at_a_time(
    grid: Index, speech_run: Path, monkeypatch: pytest.MonkeyPatch,
    windows: str, frames: int, rule: str,
) -> None:  # fmt: skip
    scored = Mock(wraps=score_clip)
    monkeypatch.setattr(speech, "score_clip", scored)
    record = evaluated("l2s", speech_run, grid, "train", limit=1, windows=windows)
    model, *others = (call.args for call in scored.call_args_list)
    assert (len(model[1]), model[3]) == (4 * frames * 160, rule)  # 160 samples a column
    assert {given[3] for given in others} == {"min"}
    assert record["flags"]["windows"] == windows and record["flags"]["length_rule"] == rule
    monkeypatch.setattr(eval_l2s, "LOST_FRAMES", 4)
    if windows == "cut":
        line = fault(evaluated, "l2s", speech_run, grid, "train", limit=1, windows=windows)
        assert "would leave 5 of 75 frames" in line


@pytest.fixture(scope="module")
def judge(grid: Index, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judge of the same split that has learnt next to nothing, and one test clip too many."""
    pytest.importorskip("jiwer", reason="word errors are counted with the extra eval")
    path = tmp_path_factory.mktemp("judge") / "judge.pt"
    parts = split_rows(grid, load_corpora()["grid"], "vcagan-16-7-10")
    state = training.train(grid, parts, Training(epochs=2), torch.device("cpu"))
    test = split_rows(grid, load_corpora()["grid"], "vcagan-16-7-10", need=("test",)).rows["test"]
    state["data"]["keys"].append(grid.key(test[0]))
    checkpoint.save(path, state)
    return path


@pytest.fixture(scope="module")
def judged(
    grid: Index, speech_run: Path, judge: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    """A record with word errors by both judges, and the folder of what was heard."""
    folder = tmp_path_factory.mktemp("wavs") / "made"
    with patch.object(eval_l2s.log, "info") as said:
        record = evaluated("l2s", speech_run, grid, "test", judge=judge, wavs=folder)
    told = [call.args[0] for call in said.call_args_list]
    assert any(line.startswith("the judge has learnt from 1 of these ") for line in told)
    return json.loads(json.dumps(record, default=float)), folder


@pytest.fixture(scope="module")
def plain(grid: Index, speech_run: Path) -> tuple[dict[str, Any], Any]:
    """A record of one clip without any option, and the mean log-mel that its floor was made of."""
    with patch.object(bounds, "bounds", wraps=bounds.bounds) as measured:
        record = evaluated("l2s", speech_run, grid, limit=1)
    return record, measured.call_args.args[-1]


def test_each_judge_hears_all(
    grid: Index, judge: Path, judged: tuple[dict[str, Any], Path]
) -> None:
    pytest.importorskip("pocketsphinx", reason="it hears words with the extra eval")
    record, _ = judged
    clips = record["clips"]
    signals = {"ceiling": record["ceiling"], "real": record["real"], **record["floors"]}
    assert set(signals) == {"ceiling", "real", "mean_mel", "other_sentence", "noise"}
    for name, metrics in {"model": record["metrics"], **signals}.items():
        for kind, field in (("judge", "heard_judge"), ("pocketsphinx", "heard")):
            heard = [c[field] if name == "model" else c["heard_in"][name][kind] for c in clips]
            rate = word_error_rate([c["words"] for c in clips], heard, ["s2"] * len(clips))
            assert metrics[f"wer_{kind}"] == rate["wer"], (name, kind)
            assert record["per_slot"][name][kind] == rate["per_slot"]
    rows = split_rows(grid, load_corpora()["grid"], "vcagan-16-7-10").rows["test"]
    real = [one for batch in stored_mels.read_mels(grid, rows) for one in batch]
    stored = recogniser.load(judge, grid)
    # What is heard in the stored sound is what is heard in the stored log-mels of it.
    assert [c["heard_in"]["real"]["judge"] for c in clips] == transcribe(stored.network, real)
    flag = record["flags"]["wer_judge"]
    assert flag["hash"] == fingerprint(stored.network) and flag["split"] == "vcagan-16-7-10"
    assert flag["own_wer"]["real"]["value"] is not None and flag["judge_saw_test"] == 1


def test_without_a_judge_the_figure_is_null_and_says_why(
    plain: tuple[dict[str, Any], Any], judged: tuple[dict[str, Any], Path]
) -> None:
    record = plain[0]
    signals = [record[name] for name in ("metrics", "ceiling", "real")]
    for metrics in [*signals, *record["floors"].values()]:
        assert metrics["wer_judge"]["value"] is None
        assert "avb train judge" in metrics["wer_judge"]["reason"]
    assert record["flags"]["wer_judge"] is None and "wavs" not in record
    alone = record["floors"]["other_sentence"]["wer_pocketsphinx"]
    assert alone["value"] is None and ("no clip" if SPHINX else "not installed") in alone["reason"]
    same, clip = record["clips"][0], judged[0]["clips"][0]  # the rest depends on no judge
    # ESTOI of an untrained network is a sum that nearly cancels: a share of it says nothing.
    for name, value in clip["values"].items():
        wanted = value and pytest.approx(value, rel=1e-6, abs=1e-6)
        assert same["values"][name] == wanted, name
    assert same.get("heard") == clip.get("heard")
    assert "heard_judge" in clip and "heard_judge" not in same


def test_written_is_what_was_scored(grid: Index, judged: tuple[dict[str, Any], Path]) -> None:
    record, folder = judged
    assert record["wavs"]["files"] == 3 * len(record["clips"]) == len(list(folder.rglob("*"))) - 1
    for clip in record["clips"]:
        heard = {}
        for signal in ("model", "griffin_lim", "real"):
            with wave.open(str(folder / f"{clip['key']}.{signal}.wav")) as file:
                shape = file.getnchannels(), file.getsampwidth(), file.getframerate()
                assert shape == (1, 2, 16_000) and file.getnframes() == 48_000
                samples = np.frombuffer(file.readframes(48_000), "<i2")
            heard[signal] = (samples / 32768).astype(np.float32)
        mel = stored_mels.front_end(grid)
        again = score_clip(heard["real"], heard["model"], mel)["values"]
        for name in ("stoi", "estoi", "mel_distance"):
            assert again[name] == pytest.approx(clip["values"][name], abs=0.01), name
        assert score_clip(heard["real"], heard["griffin_lim"], mel)["values"]["estoi"] > 0.6


def test_a_vocoder_makes_the_sound_and_is_named(
    grid: Index, speech_run: Path, plain: tuple[dict[str, Any], Any], tmp_path: Path
) -> None:
    heard, records = [], []
    for name, louder in (("plain", 1.0), ("half", 0.5)):
        file, folder = save_vocoder(tmp_path / f"{name}.pt", louder), tmp_path / name
        options: dict[str, Any] = {"limit": 1, "wavs": folder, "vocoder": file}
        records.append(evaluated("l2s", speech_run, grid, **options))
        heard.append({
            path.name.split(".")[1]: np.frombuffer(path.read_bytes()[44:], "<i2") / 32768
            for path in folder.rglob("*.wav")
        })  # fmt: skip
        state = torch.load(file, weights_only=True)
        flag = records[-1]["flags"]["vocoder"]
        assert flag["hash"] == state["hash"] and flag["vocoder_saw_test"] == 0
        assert set(records[-1]["floors"]) == {*plain[0]["floors"], "griffin_lim"}
    assert plain[0]["flags"]["vocoder"] is None
    first, second = heard
    assert set(first) == {"model", "vocoder", "griffin_lim", "real"}
    assert not any(record["wavs"]["scaled_down"] for record in records)
    for name in first:
        factor = 0.5 if name in ("model", "vocoder") else 1
        np.testing.assert_allclose(second[name], factor * first[name], atol=1e-3, err_msg=name)
    alone = records[0]["floors"]["griffin_lim"]["estoi"]
    before = plain[0]["ceiling"]["estoi"]  # of the same sound, which adds up anew
    assert alone == {name: pytest.approx(value) for name, value in before.items()}
    assert records[0]["ceiling"]["estoi"]["value"] == pytest.approx(alone["value"], abs=0.02)
    lrw = save_vocoder(tmp_path / "lrw.pt", corpus="lrw")
    line = fault(evaluated, "l2s", speech_run, grid, limit=1, vocoder=lrw)
    assert "hears other log-mels than those of" in line


def test_griffin_lim_as_it_is_published_is_flagged(grid: Index, speech_run: Path) -> None:
    records = [evaluated("l2s", speech_run, grid, limit=1, griffin_lim=how)
               for how in ("fast", "published")]  # fmt: skip
    named = [{k: v for k, v in r["flags"].items() if k in ("gl_momentum", "gl_power")}
             for r in records]  # fmt: skip
    assert named == [{"gl_momentum": 0.99}, {"gl_momentum": 0.0, "gl_power": 1.5}]
    sharp, plain = (r["ceiling"]["mel_distance"]["value"] for r in reversed(records))
    assert sharp != plain


def test_sounds_too_loud_for_16_bits_are_made_quieter_and_named(tmp_path: Path) -> None:
    tone = np.sin(np.arange(1600) / 5).astype(np.float32)
    exact = (np.arange(-32768, 32768) / 32768).astype(np.float32)
    folder = WavFolder(tmp_path / "a" / "b")
    folder.write("model", ["s1/x", "s1/y", "s2/z"], [1.5 * tone, 0.5 * tone, exact])
    assert folder.written == 3 and folder.scaled == ["x.model.wav"]
    wavs = (tmp_path / "a" / "b").rglob("*.wav")
    written = {wav.name[0]: np.frombuffer(wav.read_bytes()[44:], "<i2") for wav in wavs}
    assert np.abs(written["x"]).max() == 32767
    np.testing.assert_allclose(written["x"] / 32767, tone / np.abs(tone).max(), atol=1e-4)
    np.testing.assert_allclose(written["y"] / 32768, 0.5 * tone, atol=1e-4)
    assert written["z"].tolist() == list(range(-32768, 32768))
    assert "leads out of" in fault(folder.write, "model", ["../../x"], [tone])
    assert not list(tmp_path.glob("*.wav"))


def test_half_a_sound_never_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = WavFolder(tmp_path / "wavs")
    monkeypatch.setattr("os.fsync", Mock(side_effect=OSError(28, "No space left on device")))
    line = fault(folder.write, "model", ["s1/x"], [np.zeros(1600, np.float32)])
    assert "x.model.wav: cannot be written (No space left" in line
    assert not [path for path in (tmp_path / "wavs").rglob("*") if path.is_file()]
    (tmp_path / "file").write_text("")
    assert "cannot be made" in fault(WavFolder, tmp_path / "file" / "wavs")


def test_the_mean_of_the_training_clips_is_the_floor(
    grid: Index, speech_run: Path, plain: tuple[dict[str, Any], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    record, mean = plain
    rows = split_rows(grid, load_corpora()["grid"], "vcagan-16-7-10").rows
    train = [one for batch in stored_mels.read_mels(grid, rows["train"]) for one in batch]
    torch.testing.assert_close(mean, torch.stack(train).mean(0))
    assert record["flags"]["mean_mel"] == {"part": "train", "clips": len(train)}
    # Shards without a training clip have the mean of what is evaluated, and say so.
    alone = speech_run.with_name("alone.pt")
    changed(speech_run, alone, speakers=["s2"])
    monkeypatch.setattr(recognisers, "available", lambda judge, mel: {})
    record = evaluated("l2s", alone, grid, limit=1)
    assert record["flags"]["mean_mel"] == {"part": "evaluated", "clips": 1}


def test_of_many_clips_some_make_the_mean(grid: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_mels, "MEAN_CLIPS", 3)
    rows = np.arange(7)
    mean, count = stored_mels.mean_mel(grid, rows)
    chosen = [one for batch in stored_mels.read_mels(grid, rows[[0, 3, 6]]) for one in batch]
    assert count == 3
    torch.testing.assert_close(mean, torch.stack(chosen).mean(0))


def test_a_clip_of_one_picture_and_one_without_a_sentence_lose_no_other(
    grid: Index, speech_run: Path, judge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = eval_l2s.reconstruct

    def cut(*given: Any) -> Any:
        clips = real(*given)
        clips.sounds[0] = clips.sounds[0][20_000:20_640]
        clips.true[0], clips.made[0] = clips.true[0][:, :4], clips.made[0][:, :4]
        clips.facts[1]["words"] = ["hello"]
        return clips

    given = ("l2s", speech_run, grid, "train")
    whole = evaluated(*given, judge=judge)
    monkeypatch.setattr(eval_l2s, "reconstruct", cut)
    record = evaluated(*given, judge=judge)
    short = record["clips"][0]
    assert {f["key"] for f in record["failures"]["stoi"]} == {short["key"]}
    for mine, theirs in zip(record["clips"][1:], whole["clips"][1:], strict=True):
        for name in ("stoi", "estoi", "mel_distance"):
            assert mine["values"][name] == pytest.approx(theirs["values"][name], abs=1e-4)
    for name in ("wer_judge", "wer_pocketsphinx")[: 1 + SPHINX]:
        assert record["metrics"][name]["left_out"] == 1 and "left_out" not in whole["metrics"][name]
        assert record["metrics"][name]["value"] is not None
    judged = "heard" if SPHINX else "heard_judge"
    assert [judged in clip for clip in record["clips"]] == [True, False, True, True]


def test_intervals_draw_untrained_talkers(grid: Index, speech_run: Path, tmp_path: Path) -> None:
    keys = [grid.key(i) for i in range(len(grid))]
    parts = {"s1": "train", "s3": "train", "s2": "test", "s9": "test"}
    strangers = {key: parts[key.split("/")[0]] for key in keys}
    mixed = strangers | {keys[0]: "test"}
    for listed, unseen in ((strangers, True), (mixed, False)):
        changed(speech_run, tmp_path / "x.pt", split="mine.txt", listed=listed)
        record = evaluated("l2s", tmp_path / "x.pt", grid)
        assert record["flags"]["intervals"].startswith("of talkers") == unseen
        clips, shown = record["clips"], record["metrics"]
        for name, value in summarise(clips, unseen_talkers=unseen)["metrics"].items():
            assert shown[name] == value
        assert shown["stoi"] != summarise(clips, unseen_talkers=not unseen)["metrics"]["stoi"]
        if not SPHINX:
            continue
        said, heard = [c["words"] for c in clips], [c["heard"] for c in clips]
        talkers = [c["talker"] for c in clips] if unseen else None
        assert shown["wer_pocketsphinx"] == word_error_rate(said, heard, talkers)["wer"]
