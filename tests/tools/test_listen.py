"""The listening test: blind, in an order that keeps its rules, and scored as was fixed before."""

import base64
import csv
import io
import itertools
import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import did, refused
from networks import save_vocoder
from raters import TRUE, answer
from scipy.io import wavfile

from avb.pipeline.clip.audio import log_mel
from avb.pipeline.config import load_corpora
from avb.pipeline.corpora.grid import words_of
from avb.tools.listen import score
from avb.tools.listen.level import TARGET_DBOV, active_level_dbov
from avb.train.evaluate.wav import WavFolder
from avb.train.evaluate.words.grammar import SLOT_NAMES

RATE = 16_000
NAMES = ["bbaf2n", "lwbz9s", "pgia1p", "sriq4a", "brbx7s", "lgwu3p", "pwao5n", "sbij6a", "swaa8n"]
CLIPS = 6


# The page ----------------------------------------------------------------------------------------


def speechlike(seed: int, samples: int, loud: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    syllables = np.abs(np.sin(np.arange(samples) * 2 * np.pi * 2 / RATE))
    return (rng.normal(0, loud, samples) * syllables).astype(np.float32)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two systems on nine sentences of two talkers; one sentence is a frame shorter."""
    top = tmp_path_factory.mktemp("wavs")
    keys = [f"s{1 + i % 2}/{name}" for i, name in enumerate(NAMES)]
    lengths = [47_360 if i == 3 else 48_000 for i in range(len(keys))]
    for number, system in enumerate(("secretmemory", "secretbaseline")):
        out = WavFolder(top / system)
        for signal, loud, shift in (
            ("real", 0.2, 0),
            ("griffin_lim", 0.1, 50),
            ("model", 0.02, 99),
        ):
            own = shift + (number if signal == "model" else 0)
            sounds = [speechlike(i + 100 * own, n, loud) for i, n in enumerate(lengths)]
            out.write(signal, keys, sounds)
    return [f"{folder.name}={folder}" for folder in sorted(top.iterdir())]


@pytest.fixture(scope="session")
def made(folders: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    page = tmp_path_factory.mktemp("page") / "test.html"
    told = did("listen", *folders, "--out", page, "--clips", CLIPS).stderr
    assert "30 clips and 4 repeats" in told
    return page, json.loads(page.with_suffix(".key.json").read_text())


def test_true_mels_through_a_vocoder_are_one_system_more(
    folders: list[str], tmp_path: Path
) -> None:
    page, file = tmp_path / "test.html", save_vocoder(tmp_path / "vocoder.pt")
    words = ["--out", page, "--clips", CLIPS, "--vocoder", file]
    told = did("listen", *folders, *words).stderr
    assert "6 sentences of 6 systems, 36 clips and 4 repeats" in told
    key = json.loads(page.with_suffix(".key.json").read_text())
    assert key["systems"][-4:] == ["real", "griffin_lim", "floor", "vocoder"]
    heard = {(one["system"], one["key"]): content(page)["clips"][name]["wav"]
             for name, one in key["clips"].items()}  # fmt: skip
    sentence = next(k for s, k in heard if s == "vocoder")
    own, real = (base64.b64decode(heard[s, sentence])[44:] for s in ("vocoder", "real"))
    mel = load_corpora()["grid"].mel
    first, second = (log_mel(np.frombuffer(one, "<i2").astype(np.float32) / 32768, mel, RATE)
                     for one in (own, real))  # fmt: skip
    assert own != real and np.abs(first - second).mean() < 0.5  # its mel, not its wave
    line = refused("listen", folders[0].replace("secretbaseline=", "vocoder="), *words)
    assert "system 'vocoder': give each its own name" in line


def test_a_key_that_is_there_is_not_replaced(folders: list[str], made: tuple[Path, Any]) -> None:
    page, key = made
    before = page.read_bytes()
    line = refused("listen", *folders, "--out", page, "--clips", CLIPS, "--seed", 1)
    assert ".key.json: the key of another test" in line and "--out" in line
    assert page.read_bytes() == before
    folder = page.with_name("folder.html")
    folder.mkdir()
    assert "is a folder" in refused("listen", *folders, "--out", folder, "--clips", CLIPS)
    assert not folder.with_suffix(".key.json").exists()
    assert json.loads(page.with_suffix(".key.json").read_text()) == key


def test_a_clip_whose_clicks_keep_it_quieter_is_told(folders: list[str], tmp_path: Path) -> None:
    name, _, folder = folders[0].partition("=")
    copy = shutil.copytree(folder, tmp_path / "copy")
    for path in copy.rglob("*.model.wav"):
        wavfile.write(path, RATE, (20_000 * np.eye(1, 48_000, 9_000)[0]).astype(np.int16))
    words = (f"{name}={copy}", "--out", tmp_path / "x.html", "--clips", CLIPS)
    assert "7 clips are quieter than the others: s" in did("listen", *words).stderr


def content(page: Path) -> Any:
    return json.loads(page.read_text().split('id="test">')[1].split("</script>")[0])


def test_the_page_is_blind_and_its_key_says_what_each_clip_is(made: tuple[Path, Any]) -> None:
    page, key = made
    text = page.read_text()
    test = content(page)
    bare = re.sub(r'"wav": "[^"]*"', "", text)
    assert "http:" not in bare and "https:" not in bare and "//" not in bare.replace("// ", "")
    assert "default-src 'none'" in bare
    for name in (*key["systems"], *NAMES, "s1/", "secret"):
        assert not re.search(rf"\b{re.escape(name)}\b", bare), name
    assert len(test["clips"]) == 5 * CLIPS + 3 == len(key["clips"])
    assert len(test["practice"]) == 3 and len(test["orders"]) == 200
    assert key["page_hash"] in bare and "@" not in bare.split("<script")[0]
    systems = Counter(clip["system"] for clip in key["clips"].values())
    assert set(systems) == {"secretmemory", "secretbaseline", "real", "griffin_lim", "floor"}
    tested = {clip["key"] for i, clip in key["clips"].items() if i not in key["practice"]}
    practised = {key["clips"][i]["key"] for i in key["practice"]}
    assert len(tested) == CLIPS and len(practised) == 3 and not tested & practised
    assert Counter(k[:2] for k in tested | practised) == {"s1": 5, "s2": 4}
    for one, clip in content(page)["clips"].items():
        assert clip["words"] == words_of(key["clips"][one]["key"][3:])


def test_all_clips_are_of_one_level_length_and_rate(made: tuple[Path, Any]) -> None:
    lengths, blobs = set(), set()
    for clip in content(made[0])["clips"].values():
        blob = base64.b64decode(clip["wav"])
        rate, sound = wavfile.read(io.BytesIO(blob))
        assert (rate, sound.dtype, sound.ndim) == (RATE, "int16", 1)
        lengths.add(len(sound))
        blobs.add(blob)
        assert active_level_dbov(sound / 32768) == pytest.approx(TARGET_DBOV, abs=0.15)
    assert len(lengths) == 1 and len(blobs) == 5 * CLIPS + 3


@pytest.mark.parametrize("case", ["few", "name", "folder", "real", "rate", "silent", "grid"])
def test_what_does_not_fit_is_one_line(folders: list[str], tmp_path: Path, case: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folders[0].split("=")[1], copy)
    systems, clips, said = [*folders, f"third={copy}"], CLIPS, ""
    if case == "few":
        clips, said = 24, "9 sentences are in all folders, and 27"
    elif case == "name":
        systems, said = [f"real={copy}"], "its own name"
    elif case == "folder":
        systems, said = ["x=nowhere"], "no such folder"
    elif case == "grid":
        for path in list(copy.rglob("*.wav")):
            path.rename(path.with_name("0" + path.name))
        systems, said = [f"x={copy}"], "no GRID sentence"
    else:
        said = {"real": "differ in the real", "rate": "16000 Hz", "silent": "silent"}[case]
        for path in copy.rglob("*.real.wav" if case == "real" else "*.model.wav"):
            wavfile.write(path, 8000 if case == "rate" else RATE, np.zeros(48_000, np.int16))
    words = ("--out", tmp_path / "x.html", "--clips", clips)
    assert said in refused("listen", *systems, *words)
    assert not (tmp_path / "x.html").exists()


# Scoring -----------------------------------------------------------------------------------------


def ratings(files: list[Path], key: Any, scale: str) -> dict[str, np.ndarray]:
    """[raters x sentences] of each system, read by other means than the code's."""
    found: dict[str, dict[tuple[int, str], float]] = {}
    for rater, path in enumerate(files):
        for row in csv.DictReader(path.open(newline="")):
            clip = key["clips"][row["clip"]]
            if row["kind"] == "test":
                found.setdefault(clip["system"], {})[rater, clip["key"]] = float(row[scale])
    keys = sorted({k for _, k in found["real"]})
    return {name: np.array([[own[r, k] for k in keys] for r in range(len(files))])
            for name, own in found.items()}  # fmt: skip


def test_figures_agree_with_another_calculation(made: tuple[Path, Any], tmp_path: Path) -> None:
    page, key = made
    files = [answer(key, tmp_path, f"r{i}", seed=i, secretmemory=3 + i % 3) for i in range(7)]
    done = did("listen-score", *files, "--key", page.with_suffix(".key.json"), "--json")
    assert not done.stderr
    record = json.loads(done.stdout)
    tables = ratings(files, key, "naturalness")
    rng = np.random.default_rng(99)
    draws: dict[str, list[float]] = {name: [] for name in tables}
    for _ in range(4000):  # one draw at a time, rows and columns picked by hand
        people, clips = rng.integers(0, 7, 7), rng.integers(0, CLIPS, CLIPS)
        for name, table in tables.items():
            draws[name].append(table[people][:, clips].mean())
    for name, table in tables.items():
        one = record["systems"][name]["naturalness"]
        assert one["value"] == pytest.approx(table.mean())
        low, high = np.percentile(draws[name], [2.5, 97.5])
        assert one["low"] == pytest.approx(low, abs=0.05)
        assert one["high"] == pytest.approx(high, abs=0.05)
        means = table.mean(axis=1)
        half = 2.4469 * means.std(ddof=1) / np.sqrt(7)  # t(0.975, 6)
        assert one["rater_mean"]["half"] == pytest.approx(half, rel=1e-4)
    # The width is that of raters who differ: all ratings taken as independent would say half.
    memory = record["systems"]["secretmemory"]["naturalness"]
    naive = 1.96 * tables["secretmemory"].std() / np.sqrt(7 * CLIPS)
    assert (memory["high"] - memory["low"]) / 2 > 1.5 * naive
    gap = np.array(draws["secretmemory"]) - np.array(draws["secretbaseline"])
    both = {"secretmemory", "secretbaseline"}
    pair = next(d for d in record["differences"]
                if {d["a"], d["b"]} == both and d["measure"] == "naturalness")  # fmt: skip
    ends = sorted(pair[end] * (1 if pair["a"] == "secretmemory" else -1) for end in ("low", "high"))
    assert ends == pytest.approx(np.percentile(gap, [2.5, 97.5]), abs=0.08)
    assert len(record["differences"]) == 3 * 10 and record["notes"]


def test_human_word_error_counts_words_and_blanks(made: tuple[Path, Any], tmp_path: Path) -> None:
    page, key = made
    record = score.score([answer(key, tmp_path, "a", 5)], page.with_suffix(".key.json"), draws=200)
    wer = {name: figures["wer"]["value"] for name, figures in record["systems"].items()}
    wanted = dict.fromkeys(("secretmemory", "real", "griffin_lim"), 0)
    assert wer == pytest.approx(wanted | {"secretbaseline": 1 / 6, "floor": 1})
    assert record["systems"]["floor"]["wer_first"] in (1, None)
    assert record["systems"]["real"]["wer"]["rater_mean"]["half"] is None


def test_raters_are_left_out_by_the_rule_alone(made: tuple[Path, Any], tmp_path: Path) -> None:
    page, key = made
    files = [
        answer(key, tmp_path, "good", 1),
        answer(key, tmp_path, "one-off", 2, repeats_off=1),
        answer(key, tmp_path, "two-off", 3, repeats_off=2),
        answer(key, tmp_path, "deaf", 4, real=1, floor=5),
        answer(key, tmp_path, "gone", 5, rows=20),
    ]
    record = score.score(files, page.with_suffix(".key.json"), draws=200)
    assert [one["rater"] for one in record["raters"]] == ["good", "one-off"]
    out = {one["rater"]: " ".join(one["reasons"]) for one in record["excluded"]}
    assert set(out) == {"two-off", "deaf", "gone"}
    assert "2 of 4 repeats" in out["two-off"] and "above real" in out["deaf"]
    assert "not finished: 17 of 34" in out["gone"]
    done = did("listen-score", *files, "--key", page.with_suffix(".key.json"))
    assert "2 raters, 3 left out" in done.stderr and "naturalness" in done.stdout


@pytest.mark.parametrize(
    "case", ["page", "twice", "order", "score", "columns", "slot", "native", "plays", "gone", "key"]
)
def test_a_foreign_file_is_one_line(made: tuple[Path, Any], tmp_path: Path, case: str) -> None:
    page, key = made
    path, key_file = answer(key, tmp_path, "r", 1), page.with_suffix(".key.json")
    text = path.read_text()
    files, said = [path], ""
    if case == "page":
        text, said = text.replace(key["page_hash"], "0" * 64), "page_hash differs"
    elif case == "order":
        text, said = text.replace('"r","1"', '"r","2"'), "not in the order of its seed"
    elif case == "score":
        text, said = re.sub(r'"\d","1","2.5"', '"9","1","2.5"', text), "none of 1 to 5"
    elif case in ("columns", "slot", "native"):
        column = {"columns": "kind", "slot": SLOT_NAMES[1], "native": "native"}[case]
        text, said = text.replace(f'"{column}"', '"sort"'), f"column '{column}' is missing"
    elif case == "plays":
        text, said = text.replace('"1","2.5"', '"","2.5"'), "r.csv: invalid literal for int()"
    elif case == "twice":
        files, said = [path, path], "in two files"
    elif case == "gone":
        files, said = [tmp_path / "nobody.csv"], "nobody.csv"
    else:
        key_file, said = path, "not the key"
    path.write_text(text)
    assert said in refused("listen-score", *files, "--key", key_file)


# In a browser ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_rater_goes_through_the_page_in_a_browser(made: tuple[Path, Any], tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="drives a browser")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on PATH")
    page, key = made
    clips = [*key["practice"], *itertools.chain(*key["orders"][7])]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        asked: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("pageerror", lambda error: pytest.fail(str(error)))
        tab.goto(f"file://{page}#seed=7")
        assert tab.is_disabled("#begin")
        tab.fill("#rater", 'Ada, "the first"')
        tab.check("input[name=headphones][value=no]")
        tab.check("input[name=native][value=yes]")
        tab.click("#begin")
        for number, one in enumerate(clips):
            assert tab.is_disabled("#said") and not tab.is_visible("#truth")
            tab.click("#play")
            if number == 0:
                tab.click("#play")
                for _ in range(100):  # not wait_for_function: the page forbids eval
                    tab.wait_for_timeout(100)
                    if tab.evaluate("trial.sound.currentTime") > 0.1:
                        break
                assert tab.evaluate("trial.sound.currentTime") > 0.1
                assert tab.evaluate("trial.sound.duration") == pytest.approx(3, abs=0.01)
            words = words_of(key["clips"][one]["key"][3:])
            for slot, word in zip(SLOT_NAMES, words, strict=True):
                tab.select_option(f"select[name={slot}]", word)
            tab.click("#said")
            assert tab.inner_text("#truth") == " ".join(words) and tab.is_disabled("#said")
            assert not tab.is_visible("#second") and tab.is_disabled("#next")
            rating = TRUE[key["clips"][one]["system"]]
            tab.check(f'input[name=intelligibility][value="{rating}"]')
            tab.check(f'input[name=naturalness][value="{rating}"]')
            if number < len(clips) - 1:
                tab.click("#next")
        with tab.expect_download() as saved:
            tab.click("#next")
        saved.value.save_as(tmp_path / "ada.csv")
        browser.close()
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)
    rows = list(csv.DictReader((tmp_path / "ada.csv").open(newline="")))
    assert [row["clip"] for row in rows] == clips and rows[0]["plays"] == "2"
    assert float(rows[0]["play_to_answer_s"]) > 0.1
    record = score.score([tmp_path / "ada.csv"], page.with_suffix(".key.json"), draws=100)
    assert record["raters"][0]["rater"] == 'Ada, "the first"'
    assert record["systems"]["secretmemory"]["naturalness"]["value"] == TRUE["secretmemory"]
    assert record["systems"]["floor"]["wer"]["value"] == 0
