"""`avb prep`: plan, run the units that are missing, account for every clip."""

from __future__ import annotations

import errno
import fcntl
import functools
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from avb.pipeline.account import write_dataset, write_manifest
from avb.pipeline.config import Corpus, UsageError
from avb.pipeline.engine import PrepError, run_units
from avb.pipeline.plan import Plan, Settings, make_plan, read_plan
from avb.pipeline.unit import finished, rows_path

Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Summary:
    """The outcome of a run, as `--json` prints it."""

    corpus: str
    listed: int
    ok: int
    status: dict[str, int]
    flags: dict[str, int]
    seconds: float
    clips_per_s: float
    out: str
    made: int
    notices: list[str]


def prep(
    corpus: Corpus,
    settings: Settings,
    root: Path,
    out: Path,
    *,
    jobs: int = 1,
    retry_failed: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Make what is missing of `out/<corpus>/` and account for every listed clip.

    Args:
        progress: called with (clips done, refused, to do).

    Raises:
        UsageError: nothing is found, the folder holds other settings, or another run holds it.
        PrepError: a worker died or the disk refused; what is finished is kept.
    """
    start = time.perf_counter()
    folder = out / settings.corpus
    with _held(folder), _disk_faults_named():
        plan = _settle(corpus, settings, root, folder, overwrite)
        todo = _missing(folder, plan, retry_failed)
        if todo or not (folder / "dataset.json").is_file():
            # dataset.json says "complete", so it goes first and comes back last.
            (folder / "dataset.json").unlink(missing_ok=True)
            _clean(folder, plan)
            made = sum(plan.units[number].clips for number in todo)
            run_units(plan.path, folder, todo, jobs, functools.partial(_report, progress, made))
            write_manifest(folder, plan)
            record = write_dataset(folder, plan, corpus, time.perf_counter() - start)
        else:
            made = 0
            record = json.loads((folder / "dataset.json").read_text())
    seconds = time.perf_counter() - start
    counts = record["counts"]
    return Summary(
        corpus=settings.corpus,
        listed=counts["listed"],
        ok=counts["ok"],
        status=counts["status"],
        flags=counts["flags"],
        seconds=round(seconds, 2),
        clips_per_s=round(made / seconds, 2),
        out=str(folder),
        made=made,
        notices=plan.notices,
    )


def _report(progress: Progress | None, to_do: int, done: int, refused: int) -> None:
    if progress is not None:
        progress(done, refused, to_do)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the output folder against a second run; the lock goes with the process."""
    hidden = folder / ".avb"
    try:
        hidden.mkdir(parents=True, exist_ok=True)
        lock = (hidden / "lock").open("w")
    except OSError as error:
        raise PrepError(f"{folder}: cannot be written ({error.strerror})") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise PrepError(f"{folder}: another run is writing here; wait for it") from None
        yield


def _settle(corpus: Corpus, settings: Settings, root: Path, folder: Path, overwrite: bool) -> Plan:
    """A fresh plan for the folder, refused if the folder was made with other settings."""
    path = folder / ".avb" / "plan.parquet"
    if overwrite:
        _empty(folder)
    elif path.is_file():
        difference = settings.difference(read_plan(path).settings)
        if difference:
            raise UsageError(
                f"{folder} was made with other settings ({'; '.join(difference)});"
                " give them again, another --out, or --overwrite"
            )
    elif any(folder.glob("*.tar")):
        raise UsageError(f"{folder}: holds shards but no plan of this tool; give another --out")
    return make_plan(corpus, settings, root, path)


def _empty(folder: Path) -> None:
    """Remove what an earlier run made; other files are left alone."""
    (folder / "dataset.json").unlink(missing_ok=True)
    (folder / "manifest.parquet").unlink(missing_ok=True)
    for tar in folder.glob("*.tar"):
        tar.unlink()
    shutil.rmtree(folder / ".avb" / "rows", ignore_errors=True)
    (folder / ".avb" / "plan.parquet").unlink(missing_ok=True)


def _missing(folder: Path, plan: Plan, retry_failed: bool) -> list[int]:
    """Numbers of the units to make: those not finished, with `retry_failed` those with refusals."""
    todo = []
    for unit in plan.units:
        done = finished(folder, unit)
        if done is None or (retry_failed and set(done["statuses"]) - {"ok", "duplicate"}):
            todo.append(unit.number)
    return todo


def _clean(folder: Path, plan: Plan) -> None:
    """Clear temporary files of a killed run, and shards and rows that the plan does not have."""
    names = {unit.name for unit in plan.units}
    for path in (*folder.glob("*.tmp"), *(folder / ".avb").rglob("*.tmp")):
        path.unlink(missing_ok=True)
    for path in (*folder.glob("*.tar"), *(folder / ".avb" / "rows").glob("*.parquet")):
        if path.stem not in names:
            path.unlink()
    for unit in plan.units:
        if not rows_path(folder, unit).is_file():
            (folder / f"{unit.name}.tar").unlink(missing_ok=True)


#: What a disk says; any other OSError is a fault of the program and shows itself as one.
DISK_FAULTS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EIO,
    errno.EFBIG,
}


@contextmanager
def _disk_faults_named() -> Iterator[None]:
    """Turn what a disk says into one line."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FAULTS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        raise PrepError(
            f"{where}{error.strerror}; finished shards are kept, run again when it is mended"
        ) from None
