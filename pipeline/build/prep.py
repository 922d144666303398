"""`avb prep`: plan, run the units that are missing, account for every clip."""

import functools
import io
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from avb.pipeline.build.executor_ray import cluster
from avb.pipeline.build.executors import Executor, local
from avb.pipeline.build.manifest import count_rows, write_dataset, write_manifest
from avb.pipeline.build.plan import Plan, Unit, make_plan, plan_path, read_plan
from avb.pipeline.build.prune import lost_clips, stale_rows
from avb.pipeline.build.scheduler import Progress, run_units
from avb.pipeline.build.unit import changed_sources, finished, rows_folder, rows_path
from avb.pipeline.config import Corpus
from avb.pipeline.corpora.lags import Lags
from avb.pipeline.errors import RunError, UsageError
from avb.pipeline.files import DISK_FAULTS, locked, publish, waited_for
from avb.pipeline.settings import Settings
from avb.pipeline.shards.dataset import open_manifest, read_dataset
from avb.pipeline.storage.mirror import Mirror, mirrored, sweep_scratch
from avb.pipeline.storage.store import Folder, read_piece

#: Shards; other tars in their folder are somebody's own.
SHARDS = "*-" + "[0-9]" * 6 + ".tar"
# A store has no lock: there the first plan is the only one and refuses what other settings would
# make, and equal runs make equal bytes.
BUSY = "another run is writing here; wait for it (only parts of the same one go side by side)"

#: What opens an executor for the length of a `with` block, by name; the argument is its address.
EXECUTORS: dict[str, Callable[[str | None], AbstractContextManager[Executor]]] = {
    "local": local,
    "ray": cluster,
}


@dataclass(frozen=True)
class Part:
    """The `index`-th, from 1, of `count` shares of the units."""

    index: int
    count: int


@dataclass(frozen=True)
class Summary:
    """The outcome of a run, as `--json` prints it; of a part, that of its share."""

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
    root: Folder,
    out: Folder,
    *,
    jobs: int | None = None,
    engine: str = "local",
    address: str | None = None,
    part: Part | None = None,
    retry_failed: bool = False,
    overwrite: bool = False,
    prune: bool = False,
    clip_timeout_s: float | None = 300.0,
    lags: Lags | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Make what is missing of `out/<corpus>/` and account for every listed clip.

    Args:
        jobs: units at once; None: `local` works in this process, `ray` on all of its cluster.
        engine: a name of `EXECUTORS`, which is at `address`.
        part: make this share of the units and account for nothing. Any number of them may run at
            once, on any machine; a run without `part` makes what is still missing and accounts.
        prune: let finished clips go that are no longer listed, of which nothing is lost else.
        clip_timeout_s: a clip that takes longer is refused as `timeout`, where there are workers
            to stop: with `jobs` or on `ray`, and not in this process. None: never.
        lags: the sound of clips is moved by these; their digest is in `settings`.

    Raises UsageError for what cannot be asked of this folder; RunError where another run holds it,
    workers die of no single clip, or the disk refused: what is finished is kept.
    """
    start = time.perf_counter()
    if engine not in EXECUTORS:
        raise UsageError(f"--engine {engine}: one of {', '.join(EXECUTORS)}")
    if part is not None and overwrite:
        raise UsageError("--overwrite with --part: each would empty the folder of the others")
    sweep_scratch()
    with (
        EXECUTORS[engine](address) as run,
        mirrored(out / settings.corpus) as mirror,
        locked(mirror.folder / ".avb" / "lock", mirror, BUSY, shared=part is not None),
        _disk_faults_named(mirror.folder),
    ):
        folder = mirror.folder
        if part is None:
            _sweep(folder)  # nobody else is at work here
        given = (corpus, settings, root, mirror, overwrite, prune, lags, part is not None)
        plan = _published(functools.partial(_settle, *given), mirror)
        units = plan.units if part is None else plan.units[part.index - 1 :: part.count]
        todo = _missing(folder, units, retry_failed)
        plan.notices += changed_sources(folder, plan, todo)
        made = sum(plan.units[number].clips for number in todo)
        if todo or (part is None and not _complete(folder, plan)):
            _make(run, mirror, plan, todo, jobs, clip_timeout_s, progress)
            if part is None:
                _account(mirror, plan, corpus, start)
        counts = count_rows(folder, units) if part else read_dataset(folder)["counts"]
        if part is None:
            mirror.push()
    seconds = time.perf_counter() - start
    return Summary(
        corpus=settings.corpus,
        **counts,
        seconds=round(seconds, 2),
        clips_per_s=round(made / seconds, 2),
        out=str(mirror),
        made=made,
        notices=plan.notices,
    )


def _make(
    run: Executor,
    mirror: Mirror,
    plan: Plan,
    todo: list[int],
    jobs: int | None,
    clip_timeout_s: float | None,
    progress: Progress | None,
) -> None:
    """Make the units `todo`."""
    # dataset.json says "complete", so it goes first and comes back last.
    (mirror.folder / "dataset.json").unlink(missing_ok=True)
    mirror.push()
    run_units(run, plan, mirror.folder, todo, jobs, progress, mirror.store, clip_timeout_s)
    mirror.pull()
    _await_rows(mirror.folder, [plan.units[number] for number in todo])


def _published(settle: Callable[[], Plan], mirror: Mirror) -> Plan:
    """The plan that was settled on, also by others who write to the same store."""
    plan = settle()
    try:
        mirror.push_plan(plan.path)
    except FileExistsError:  # theirs came first
        mirror.pull()
        plan = settle()
    return plan


def _complete(folder: Path, plan: Plan) -> bool:
    """Whether all is accounted for: what readers open can be read whole, no rows are left over."""
    try:
        read_dataset(folder)
        with open_manifest(folder) as file:
            rows = sum(map(len, file.iter_batches()))
    except (UsageError, OSError, pa.ArrowException):
        return False
    return rows == plan.listed and not stale_rows(folder, plan)


def _account(mirror: Mirror, plan: Plan, corpus: Corpus, start: float) -> None:
    """Leave what the plan has and nothing else, and say that it is complete."""
    folder = mirror.folder
    names = {unit.name for unit in plan.units}
    _sweep(folder)
    # Only now: what takes the place of these shards is finished.
    for path in (*folder.glob(SHARDS), *rows_folder(folder).glob("*.parquet")):
        if path.stem not in names and (path.suffix != ".tar" or _is_ours(path.name, mirror)):
            path.unlink()
    write_manifest(folder, plan)
    write_dataset(folder, plan, corpus, time.perf_counter() - start)


def _await_rows(folder: Path, units: list[Unit], patience_s: float = 90.0) -> None:
    """Wait until this machine sees what others wrote: network file systems may be a minute late."""
    until = time.monotonic() + patience_s
    absent = {rows_path(folder, unit).name for unit in units}
    while absent:
        absent -= {path.name for path in rows_folder(folder).glob("*.parquet")}
        if absent and time.monotonic() > until:
            raise RunError(f"{folder}: {len(absent)} units were made, but none of it is seen here")
        if absent:
            time.sleep(1.0)


def _settle(
    corpus: Corpus,
    settings: Settings,
    root: Folder,
    mirror: Mirror,
    overwrite: bool,
    prune: bool,
    lags: Lags | None,
    part: bool,
) -> Plan:
    """A fresh plan for the folder, refused if that was made with other settings or would lose.

    Until nothing speaks against the plan it has another name, and nothing is changed. Parts take
    the plan of the first one that came, but where the folder is complete.
    """
    folder = mirror.folder
    path = plan_path(folder)
    if part:
        with waited_for(path.with_name("plan.lock")):  # the first one lists, the others wait
            if (folder / "dataset.json").is_file() or not path.is_file():
                return _settle(corpus, settings, root, mirror, overwrite, prune, lags, False)
    plan = read_plan(path) if path.is_file() and not overwrite else None
    if plan is not None and (difference := settings.difference(plan.settings)):
        raise UsageError(
            f"{mirror} was made with other settings ({'; '.join(difference)});"
            " give them again, another --out, or --overwrite"
        )
    if plan is not None and part:
        if plan.given != root.resolve():
            raise UsageError(f"{mirror} was planned from {plan.given}; give the same again")
        return plan
    if plan is None and any(folder.glob("*.tar")) and not overwrite:
        raise UsageError(f"{mirror}: holds shards but no plan of this tool; give another --out")
    plan = make_plan(corpus, settings, root, path.with_name(f"plan.{os.getpid()}.tmp"), lags)
    try:
        lost = None if overwrite else lost_clips(folder, plan)
        if lost and not prune:
            raise UsageError(
                f"{mirror}: {root} no longer lists {lost}. Bring them back (a disk that is not"
                " mounted, a folder renamed?), or give --prune to let them go"
            )
        if overwrite:
            _empty(mirror)
        publish(plan.path, path)
    finally:
        plan.path.unlink(missing_ok=True)
    plan.path = path
    if lost:
        plan.notices.append(f"let go, as --prune says: {lost}")
    return plan


def _empty(mirror: Mirror) -> None:
    """Remove what an earlier run made; other files are left alone."""
    folder = mirror.folder
    tars = (tar for tar in folder.glob(SHARDS) if _is_ours(tar.name, mirror))
    for path in (folder / "dataset.json", folder / "manifest.parquet", *tars, plan_path(folder)):
        path.unlink(missing_ok=True)
    shutil.rmtree(rows_folder(folder), ignore_errors=True)


def _is_ours(name: str, mirror: Mirror) -> bool:
    """Whether a file that is called like a shard is one, by the owner of its first member."""
    head = io.BytesIO(read_piece(mirror.store or mirror.folder, name, 0, 1 << 14))
    with suppress(tarfile.ReadError, StopIteration), tarfile.open(fileobj=head, mode="r:") as tar:
        return next(iter(tar)).uname == "avb"
    return False


def _missing(folder: Path, units: list[Unit], retry_failed: bool) -> list[int]:
    """Numbers of the units that are not finished, or whose files or labels changed since."""
    todo = []
    for unit in units:
        rows = finished(folder, unit)
        if rows is not None:
            head = rows.schema.metadata
            now = (unit.sources.encode(), unit.labels.encode())
            refused = {*rows["status"].to_pylist()} - {"ok", "duplicate"}
            same = (head.get(b"sources"), head.get(b"labels")) == now
            if same and not (retry_failed and refused):
                continue
        todo.append(unit.number)
    return todo


def _sweep(folder: Path) -> None:
    """Remove what killed runs and workers left: files under temporary names."""
    hidden = folder / ".avb"
    for path in (*folder.glob("*.[0-9]*.tmp"), *hidden.rglob("*.tmp")):
        path.unlink(missing_ok=True)


@contextmanager
def _disk_faults_named(folder: Path) -> Iterator[None]:
    """Turn what a disk says into one line."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FAULTS:
            raise
        where = error.filename or folder
        raise RunError(
            f"{where}: {error.strerror}; finished shards are kept, run again when it is mended"
        ) from None
