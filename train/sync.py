"""The lags of a corpus, measured fold by fold: no clip by a network that learnt from it."""

import concurrent.futures.process
import contextlib
import hashlib
import logging
import multiprocessing
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from avb.models.sync import ENVELOPE_REACH, edge_of, find_lags, mean_over
from avb.pipeline.config import stable_hash
from avb.pipeline.corpora.lags import read_lags, write_lags
from avb.pipeline.errors import RunError, UsageError
from avb.pipeline.machine import end_with_parent
from avb.pipeline.shards.dataset import manifest_lags
from avb.pipeline.storage.store import Folder
from avb.pipeline.stream.index import Index, Ints, load_index
from avb.train import checkpoint, trainer
from avb.train.device import use_threads
from avb.train.network import Loaded, check_shards, load_network
from avb.train.recipe import Recipe
from avb.train.split import Parts
from avb.train.tasks.task import Evaluation, all_tasks, find_task

log = logging.getLogger(__name__)
#: Clips whose lags are measured, and kept, at one time.
PIECE = 2000
#: Of the clips that a fold does not measure, one in so many is not trained on either.
VALIDATION = 20
#: Least frames of a clip: the ends by which sound is shifted, and a few between them.
LEAST_FRAMES = 2 * edge_of(ENVELOPE_REACH) + 4
#: What a fold has to save its training when the process that waits for it was killed.
GRACE_S = 60.0

Lagged = NDArray[np.float64]  # lag, confidence and drift of each clip


@dataclass(frozen=True)
class Fold:
    """One of `count` networks and the clips that it measures and has not seen."""

    number: int
    count: int
    folder: Folder
    recipe: Recipe
    runs: Path
    device: str
    threads: int  # of a process of its own

    @property
    def run(self) -> Path:
        """The folder of its training and of what it has measured."""
        return self.runs / f"fold{self.number}"


def measure_corpus(
    folder: Folder, recipe: Recipe, out: Path, folds: int, device: str, jobs: int, cores: int
) -> list[dict[str, Any]]:
    """Train a network a fold, measure what it has not seen, and write the table `out`.

    Runs lie beside it, in `<out>.runs`: a call that was stopped goes on there. UsageError: no clip
    can be measured. RunError: the process of a fold died. Preempted, Diverged: as in a training.
    """
    index = load_index(folder)
    runs = out.with_suffix(".runs")
    share = cores // jobs
    work = [Fold(number, folds, folder, recipe, runs, device, share) for number in range(folds)]
    if jobs == 1:
        lagged = [run_fold(fold) for fold in work]
    else:
        spawn = multiprocessing.get_context("spawn")
        pool = concurrent.futures.ProcessPoolExecutor(jobs, spawn, end_with_parent, (GRACE_S,))
        came: list[int] = []
        try:
            with pool, _passed_on(signal.SIGTERM, came):
                lagged = list(pool.map(_run_fold_told, work))
        except concurrent.futures.process.BrokenProcessPool:
            if came:
                raise trainer.Preempted("a fold was stopped", came[0]) from None
            raise RunError(
                f"{runs}: the process of a fold died (out of memory?); the same command goes on,"
                " with --jobs 1 one fold at a time"
            ) from None
    fold_of, rows = fold_numbers(index, folds), usable(index, recipe)
    values = np.full((len(index), 3), np.nan)
    for fold, found in zip(work, lagged, strict=True):
        values[rows[fold_of[rows] == fold.number]] = found
    how = [f"fold {number} of {folds}" for number in fold_of]
    table = to_rows(index, rows, values, how)
    write_lags(out, table, facts_of(index, recipe, folds))
    return table


@contextlib.contextmanager
def _passed_on(number: int, came: list[int]) -> Iterator[None]:
    """Inside, a signal is noted in `came` and sent to the processes of this one: folds save."""

    def tell(*_: object) -> None:
        came.append(number)
        for child in multiprocessing.active_children():
            child.terminate()

    before = signal.signal(number, tell)
    try:
        yield
    finally:
        signal.signal(number, before)


def measure_by(folder: Folder, path: Path, out: Path, device: str) -> list[dict[str, Any]]:
    """Measure all clips by one network, which may be another corpus's, and write the table `out`.

    UsageError: it is none that tells a lag, was trained on other crops or log-mels, or no clip can
    be measured.
    """
    path = network_of(path)
    index, loaded = load_index(folder), load_network(path)
    check_shards(path, loaded, index)
    rows, values = usable(index, loaded.recipe), np.full((len(index), 3), np.nan)
    name = hashlib.sha256(path.read_bytes()).hexdigest()[:12]  # a training may replace it later on
    pieces = pieces_of(path, index, out.with_suffix(".runs"))
    values[rows] = measure(index, rows, loaded, device, pieces)
    values[rows, 0] -= loaded.data.get("zero_ms", 0.0)
    table = to_rows(index, rows, values, [f"model {name}"] * len(index))
    write_lags(out, table, facts_of(index, loaded.recipe, 1))
    shutil.rmtree(pieces, ignore_errors=True)
    return table


def network_of(path: Path) -> Path:
    """The network that a fold measured by, which knows its zero, or a run's best, of its folder."""
    kept = (path / f"{task}.pt" for task in all_tasks())
    return next((file for file in kept if file.is_file()), checkpoint.best_of(path))


def pieces_of(network: Path, index: Index, runs: Path) -> Path:
    """Where is kept what a network measures of these shards; others of either have another."""
    identity = network.read_bytes() + index.dataset["fingerprint"].encode()
    return runs / f"pieces-{hashlib.sha256(identity).hexdigest()[:12]}"


def _run_fold_told(fold: Fold) -> Lagged:
    """`run_fold` in a process of its own, whose lines say which fold speaks."""
    # A process measures several folds, one after the other: each is told under its own number.
    told = f"fold {fold.number}: %(message)s"
    logging.basicConfig(level=logging.INFO, format=told, force=True)
    use_threads(fold.threads)
    return run_fold(fold)


def run_fold(fold: Fold) -> Lagged:
    """Train on the other folds, then measure this one; what is there already is not done again."""
    index = load_index(fold.folder)
    rows, numbers = usable(index, fold.recipe), fold_numbers(index, fold.count)
    heard = rows[numbers[rows] == fold.number]
    others = rows[(numbers[rows] != fold.number) & ~index.silent[rows]]
    if not len(heard) or len(others) < 2:
        raise UsageError(f"{index.folder}: {len(rows)} clips can be measured, too few to learn by")
    parts = {"train": others[len(others) // VALIDATION + 1 :],
             "val": others[: len(others) // VALIDATION + 1], "test": heard}  # fmt: skip
    name = f"{fold.recipe.task}-{fold.number}-of-{fold.count}"
    trainer.train(
        fold.recipe, index, Parts(name, "by the hash of the key", parts), fold.run,
        device=fold.device, resume=True, facts={"settings": index.dataset["settings"]},
    )  # fmt: skip
    loaded = load_network(fold.run / "last.pt")
    pieces = pieces_of(fold.run / "last.pt", index, fold.run)
    values = measure(index, heard, loaded, fold.device, pieces)
    # A network's zero is anywhere near the middle of what it learnt from. That of a corpus is where
    # half of its clips are earlier; the network keeps it, to measure others from.
    zero_ms = float(np.median(values[:, 0]))
    values[:, 0] -= zero_ms
    state = checkpoint.load(fold.run / "last.pt", fold.recipe.task)
    state |= {"data": state["data"] | {"zero_ms": zero_ms}, "optimizer": None}
    checkpoint.save(fold.run / f"{fold.recipe.task}.pt", state)
    return values


def measure(index: Index, rows: Ints, loaded: Loaded, device: str, pieces: Path) -> Lagged:
    """Lag, confidence and drift of each row, float64 [rows x 3]; pieces that are there are read."""
    model, where = loaded.model.to(device).eval(), torch.device(device)
    pieces.mkdir(parents=True, exist_ok=True)
    done = []
    for start in range(0, len(rows), PIECE):
        path = pieces / f"{start:09d}.npy"
        if not path.is_file():
            part = rows[start : start + PIECE]
            evaluation = Evaluation(model, loaded.recipe, loaded.scaling, index, part, where)
            values = np.concatenate(list(_lags_of(evaluation)))
            temporary = path.with_suffix(".tmp.npy")
            np.save(temporary, values)
            temporary.rename(path)
            log.info(f"{start + len(part)} of {len(rows)} clips measured")
        done.append(np.load(path))
    return np.concatenate(done)


@torch.no_grad()
def _lags_of(evaluation: Evaluation) -> Iterator[Lagged]:
    """Lag, confidence and drift of the clips of each batch."""
    task, model, scaling = evaluation.task, evaluation.model, evaluation.scaling
    for _, inputs in evaluation.batches():
        logits_BTK = task.shift_logits(model, inputs, scaling)
        edge = edge_of(logits_BTK.shape[2] // 2)
        first, stop = torch.full_like(inputs.lengths_B, edge), inputs.lengths_B - edge
        middle = (first + stop) // 2
        lag, sure = find_lags(mean_over(logits_BTK, first, stop))
        early, _ = find_lags(mean_over(logits_BTK, first, middle))
        late, _ = find_lags(mean_over(logits_BTK, middle, stop))
        yield torch.stack([lag, sure, late - early], 1).double().cpu().numpy()


def usable(index: Index, recipe: Recipe) -> Ints:
    """Rows of the clips that can be measured; UsageError: there is none."""
    rows = find_task(recipe.task).usable_rows(index, np.flatnonzero(~index.no_audio), recipe)
    rows = rows[index.num_frames[rows] >= LEAST_FRAMES]
    if not len(rows):
        raise UsageError(f"{index.folder}: no clip of {len(index)} has sound and is long enough")
    return rows


def fold_numbers(index: Index, folds: int) -> Ints:
    """To which fold each clip belongs: dealt out in the order of the hashes of the keys."""
    hashes = np.array([stable_hash(index.key(row)) for row in range(len(index))])
    return np.argsort(np.argsort(hashes)) % folds


def to_rows(index: Index, rows: Ints, values: Lagged, how: list[str]) -> list[dict[str, Any]]:
    """The table: a row for every clip, also for those that could not be measured.

    Lags are of the sound as it was recorded: what a clip's was moved by already counts.
    """
    measured = {int(row) for row in rows}
    moved_ms = {key: ms for key, _, ms in manifest_lags(index.folder)}
    table: list[dict[str, Any]] = []
    for row, (lag, confidence, drift) in enumerate(values.tolist()):
        key, why = index.key(row), how[row]
        if row in measured:
            lag += moved_ms.get(key, 0.0)
        else:
            lag = confidence = drift = None
            why = "no sound" if index.no_audio[row] else "too short"
        table.append({"key": key, "lag_ms": lag, "confidence": confidence, "drift_ms": drift,
                      "how": why})  # fmt: skip
    return table


def facts_of(index: Index, recipe: Recipe, folds: int) -> dict[str, str]:
    """What a table says of itself."""
    facts = {"corpus": index.dataset["corpus"], "fingerprint": index.dataset["fingerprint"]}
    by = {"task": recipe.task, "seed": recipe.seed, "steps": recipe.steps, "folds": folds}
    return facts | {name: str(value) for name, value in by.items()}


def agreement(path: Path, other: Path) -> dict[str, Any]:
    """How far two tables agree on the clips that both are sure of, whatever their zeros.

    UsageError: they have fewer than two such clips in common.
    """
    first, second = read_lags(path).ms, read_lags(other).ms
    pairs = [(a, b) for key, a in first.items()
             if a is not None and (b := second.get(key)) is not None]  # fmt: skip
    if len(pairs) < 2:
        raise UsageError(
            f"{path} and {other}: {len(pairs)} clips that both are sure of, too few to compare"
        )
    a, b = np.array(pairs).T
    apart = a - b - np.median(a - b)
    same = not (np.ptp(a) and np.ptp(b))  # all of one: nothing that could go along with the other
    return {
        "in_common": len(pairs),
        "correlation": None if same else round(float(np.corrcoef(a, b)[0, 1]), 4),
        "deviation_apart_ms": round(float(apart.std()), 2),
        "median_apart_ms": round(float(np.median(np.abs(apart))), 2),
        "p90_apart_ms": round(float(np.percentile(np.abs(apart), 90)), 2),
    }


def summary(path: Path, other: Path | None) -> dict[str, Any]:
    """Figures of a table: how the lags are spread, in milliseconds; and how `other` agrees."""
    lags = read_lags(path)
    sure = np.array([lag for lag in lags.ms.values() if lag is not None])
    record: dict[str, Any] = {"clips": len(lags.ms), "sure": len(sure)}
    if len(sure):
        at = (1, 5, 25, 50, 75, 95, 99)
        spread = np.percentile(sure, at).round(1).tolist()
        record |= {"deviation_ms": round(float(sure.std()), 2),
                   "percentiles_ms": dict(zip(map(str, at), spread, strict=True)),
                   "beyond_a_frame": int((np.abs(sure) > 40).sum())}  # fmt: skip
    else:
        log.info("no lag is sure, so --sync would move nothing: more --steps, or more clips")
    agrees = {} if other is None else agreement(path, other)
    return record | {"table": str(path), "sha256": lags.digest} | agrees
