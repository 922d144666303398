"""A plan is a pure function of the listing and the settings; a unit reads only its own rows."""

from collections.abc import Callable
from pathlib import Path

import pytest
from importers import touch

from avb.pipeline.build.plan import Plan, make_plan, read_plan
from avb.pipeline.config import Crop, load_corpora, stable_hash
from avb.pipeline.parse import checked
from avb.pipeline.settings import LATER, Settings, settings_for

MakePlan = Callable[..., Plan]


@pytest.fixture
def grid_root(tmp_path: Path) -> Path:
    """Forty empty files named like sentences: a plan opens none of them."""
    names = [f"{c}{o}{p}{a}{d}{v}" for c in "bl" for o in "bgrw" for p in "a" for a in "fg"
             for d in "25" for v in "n"]  # fmt: skip
    ends = {"s1": "n", "s2": "p"}
    films = (f"{talker}/{name[:5]}{end}.mpg" for talker, end in ends.items() for name in names[:20])
    return touch(tmp_path / "grid", *films)


@pytest.fixture
def plan_of(tmp_path: Path, grid_root: Path) -> MakePlan:
    corpus = load_corpora()["grid"]

    def make(**given: object) -> Plan:
        settings = settings_for("grid", corpus, **{"shard_clips": 8} | given)
        path = tmp_path / f"plan{len(list(tmp_path.iterdir()))}.parquet"
        make_plan(corpus, settings, grid_root, path)
        return read_plan(path)

    return make


def keys(plan: Plan) -> list[list[str]]:
    return [[key for key, _ in plan.rows(unit.number)] for unit in plan.units]


def test_every_clip_is_in_one_unit_of_a_fixed_size_in_hash_order(plan_of: MakePlan) -> None:
    plan = plan_of()
    assert [len(unit) for unit in keys(plan)] == [8, 8, 4, 8, 8, 4]
    assert [unit.name for unit in plan.units[:4]] == [
        "s1-000000", "s1-000001", "s1-000002", "s2-000000",
    ]  # fmt: skip
    flat = [key for unit in keys(plan) for key in unit]
    assert len(set(flat)) == len(flat) == 40
    assert flat[:20] == sorted(flat[:20], key=stable_hash) != sorted(flat[:20])


def test_limit_is_a_nested_repeatable_sample_and_labels_are_those_of_all(plan_of: MakePlan) -> None:
    def chosen(limit: int) -> set[str]:
        return {key for unit in keys(plan_of(limit=limit)) for key in unit}

    assert len(chosen(10)) == 10
    assert chosen(10) < chosen(20)
    assert {key[:2] for key in chosen(10)} == {"s1", "s2"}
    assert plan_of(limit=1).labels == plan_of(speakers="s2").labels == plan_of().labels
    assert len(plan_of().labels) == 51
    assert plan_of(speakers="s1,s21").listed == 20


def test_digests_change_with_settings_and_own_rows_only(plan_of: MakePlan, grid_root: Path) -> None:
    before = {u.name: u.digest for u in plan_of().units}
    assert {u.name: u.digest for u in plan_of().units} == before
    assert not {u.digest for u in plan_of(crf=30).units} & set(before.values())
    (grid_root / "s2" / "swwz9a.mpg").touch()
    after = {u.name: u.digest for u in plan_of().units}
    assert {name for name in after if after[name] == before.get(name)} >= {
        "s1-000000", "s1-000001", "s1-000002",
    }  # fmt: skip
    assert any(after[name] != before[name] for name in before)


# The tracker


def test_another_tracker_is_another_setting_where_anything_is_tracked(plan_of: MakePlan) -> None:
    made, now = plan_of(tracker="mediapipe"), plan_of()
    assert now.settings.difference(made.settings) == ["tracker: mediapipe there, litert now"]
    assert not {u.digest for u in made.units} & {u.digest for u in now.units}
    whole = {"box": "whole", "crops": {"lips": Crop(112, 4)}}
    made, now = plan_of(tracker="mediapipe", **whole), plan_of(**whole)
    assert now.settings.difference(made.settings) == []
    assert [u.digest for u in made.units] == [u.digest for u in now.units]


def test_a_plan_that_names_no_tracker_is_mediapipe_s_and_its_units_stay(plan_of: MakePlan) -> None:
    """Shards made before there was a choice go on, with `--tracker mediapipe`."""
    now = plan_of(tracker="mediapipe")
    old = {k: v for k, v in now.settings.as_dict().items() if k != "tracker"}
    assert checked(Settings, old, "plan") == now.settings
    of_then = {k: v for k, v in old.items() if k not in LATER}
    assert of_then == now.settings.deciding()  # what the units of then were hashed with
