"""Studies: resumable run by run, nothing dropped, errors that say what to do."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from normviz.lab import (
    STUDIES,
    CheckpointError,
    DataError,
    History,
    load_study,
    preset,
    results_folder,
    run_study,
    study,
    summary,
)
from normviz.lab.studies import JUDGED, Study, tuned

GRID = tuple(
    preset("tame", arm, seed, depth=1, width=12, steps=4, warmup=1, eval_every=4, probe_every=2)
    for seed in range(2)
    for arm in ("ln", "bn")
)


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def told():
    lines = []
    return lines, lines.append


def test_study_records_every_run_and_resumes(tmp_path):
    lines, tell = told()
    run_study("own", tmp_path, recipes=GRID, jobs=1, device="cpu", tell=tell)
    assert lines[0] == "study own: 0 of 4 runs recorded, 1 at a time" and len(lines) == 5
    assert [history.recipe for history in load_study("own", tmp_path)] == list(GRID)

    path = tmp_path / "own.jsonl"
    record = rows(path)
    kept, lost = record[:3], record[3]
    lines = [dict(row) for row in kept]
    lines[0]["loss"] = [9.0, 9.0, 9.0, 9.0]  # a mark: recorded runs are not run again
    lines[1] = {"recipe": kept[1]["recipe"], "error": "MemoryError: "}  # a failed one is
    cut_off = json.dumps(lost)[:200]  # and so is one that was being written when the machine went down
    path.write_text("".join(json.dumps(row) + "\n" for row in lines) + cut_off)
    lines, tell = told()
    run_study("own", tmp_path, recipes=GRID, jobs=1, device="cpu", tell=tell)
    assert lines[0].startswith("study own: 2 of 4 runs recorded")
    again = load_study("own", tmp_path)
    assert [history.recipe for history in again] == list(GRID)
    assert again[0].loss == [9.0] * 4
    assert [h.loss for h in again[1:]] == [row["loss"] for row in (*kept[1:], lost)]
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))  # cut off before the newline: run again too
    run_study("own", tmp_path, recipes=GRID, jobs=1, device="cpu", tell=tell)
    assert [history.recipe for history in load_study("own", tmp_path)] == list(GRID)


def test_a_damaged_line_is_named(tmp_path):
    path = run_study("own", tmp_path, recipes=GRID[:2], jobs=1, device="cpu", tell=lambda line: None)
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first.replace(b"{", b"[", 1) + second)
    with pytest.raises(ValueError, match=r"own\.jsonl, line 1 is damaged"):
        load_study("own", tmp_path)


def test_a_run_that_another_study_has_is_not_run_again(tmp_path, monkeypatch):
    grid = GRID[:2]
    monkeypatch.setattr(study, "STUDIES", {"one": Study("", grid[:1]), "two": Study("", grid)})
    path = run_study("one", tmp_path, jobs=1, device="cpu", tell=lambda line: None)
    (row,) = rows(path)
    path.write_text(json.dumps(row | {"loss": [9.0] * 4}) + "\n")  # a mark
    lines, tell = told()
    run_study("two", tmp_path, jobs=1, device="cpu", tell=tell)
    assert lines[0].startswith("study two: 1 of 2 runs recorded")
    assert [history.loss == [9.0] * 4 for history in load_study("two", tmp_path)] == [True, False]


def test_recipes_may_follow_from_what_is_recorded(tmp_path, monkeypatch):
    tuning = tuple(replace(GRID[0], lr=lr) for lr in (1e-3, 1e-2))

    def follow(records):
        runs = records("tuning")
        return (replace(GRID[0], seed=7, **tuned(runs)["tame", "ln"]),) if len(runs) == 2 else ()

    grids = {"tuning": Study("", tuning), "judged": Study("", (), follow=follow)}
    monkeypatch.setattr(study, "STUDIES", grids)
    assert study.study_recipes("judged", tmp_path) == ()
    run_study("tuning", tmp_path, jobs=1, device="cpu", tell=lambda line: None)
    best = min(load_study("tuning", tmp_path), key=lambda history: history.loss[-1]).recipe
    run_study("judged", tmp_path, jobs=1, device="cpu", tell=lambda line: None)
    (history,) = load_study("judged", tmp_path)
    assert history.recipe == replace(best, seed=7)


def test_what_follows_from_a_studys_own_runs_is_run_with_it(tmp_path, monkeypatch):
    def follow(records):
        return tuple(replace(run.recipe, steps=6) for run in records("chain") if run.recipe.steps == 4)

    monkeypatch.setattr(study, "STUDIES", {"chain": Study("", GRID[:2], follow=follow)})
    run_study("chain", tmp_path, jobs=1, device="cpu", tell=lambda line: None)
    assert [history.recipe.steps for history in load_study("chain", tmp_path)] == [4, 4, 6, 6]


def test_columns_that_a_study_does_not_keep_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "STUDIES", {"thin": Study("", GRID[:1], keep=("grad_norm",))})
    (row,) = rows(run_study("thin", tmp_path, jobs=1, device="cpu", tell=lambda line: None))
    assert set(row["probes"]) == {"step", "grad_norm_total", "grad_norm"}


def test_two_processes_give_what_one_gives(tmp_path):
    for name, jobs in (("one", 1), ("two", 2)):
        run_study(name, tmp_path, recipes=GRID, jobs=jobs, device="cpu", tell=lambda line: None)
    one, two = ({run.recipe: run for run in load_study(name, tmp_path)} for name in ("one", "two"))  # in any order
    assert {recipe: run.loss for recipe, run in one.items()} == {recipe: run.loss for recipe, run in two.items()}
    assert all(run.meta["threads"] == 1 for run in two.values())


def test_failed_run_is_recorded_and_does_not_stop_the_study(tmp_path):
    bad = replace(GRID[0], batch=1501)
    path = run_study("own", tmp_path, recipes=(bad, GRID[1]), jobs=1, device="cpu", tell=lambda line: None)
    failed, sound = rows(path)
    assert "batch=1501 is more than" in failed["error"] and sound["verdict"]["kind"] == "stalled"
    assert len(load_study("own", tmp_path)) == 1


def test_record_of_another_grid_is_not_overwritten(tmp_path):
    run_study("own", tmp_path, recipes=GRID[:1], jobs=1, device="cpu", tell=lambda line: None)
    before = (tmp_path / "own.jsonl").read_bytes()
    with pytest.raises(ValueError, match="holds a run that is not in the study's grid"):
        run_study("own", tmp_path, recipes=GRID[1:], jobs=1, device="cpu")
    assert (tmp_path / "own.jsonl").read_bytes() == before


def test_summary_has_means_spreads_and_counts():
    def run(arm, seed, loss, accuracy):
        evals = [{"step": 20, "loss": 0.1, "accuracy": accuracy}]
        return History(preset("tame", arm, seed), [loss] * 20, evals, meta={"classes": 10})

    table = summary([run("ln", 0, 0.1, 0.9), run("bn", 0, 2.3, 0.1), run("ln", 1, 0.3, 0.8)])
    assert [row["arm"] for row in table] == ["ln", "bn"]
    assert table[0]["runs"] == 2 and table[0]["verdicts"] == {"trained": 2}
    assert table[0]["loss"] == (pytest.approx(0.2), pytest.approx(0.1414, rel=1e-3))
    assert table[0]["accuracy"] == (pytest.approx(0.85), pytest.approx(0.0707, rel=1e-3))
    assert table[1]["verdicts"] == {"stalled": 1}


def test_a_summary_has_a_place_for_runs_that_went_to_nan_or_ended_early():
    def run(seed, loss, evals):
        return History(preset("tame", "bn", seed), loss, evals, meta={"classes": 10})

    evals = [{"step": 20, "loss": math.nan, "accuracy": 0.1}]
    (row,) = summary([run(0, [math.nan] * 20, evals), run(1, [2.3] * 20, evals), run(2, [2.3], [])])
    assert row["runs"] == 3 and row["verdicts"] == {"stalled": 2, "diverged": 1} and row["bad_evals"] == 3
    assert math.isnan(row["loss"][0]) and math.isnan(row["accuracy"][1])
    assert "2 stalled, 1 diverged" in study.table([row])


def test_an_unwritable_folder_is_noticed_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    lines, tell = told()
    with pytest.raises(OSError, match="file"):
        run_study("own", tmp_path / "file" / "results", recipes=GRID, jobs=1, device="cpu", tell=tell)
    assert not lines


def test_two_processes_cannot_be_at_one_study(tmp_path):
    def again(line):
        if "runs recorded" in line:
            with pytest.raises(CheckpointError, match=r"own\.jsonl is in use: another process is at study 'own'"):
                run_study("own", tmp_path, recipes=GRID[:1], jobs=1, device="cpu")
            run_study("other", tmp_path, recipes=(), jobs=1, device="cpu", tell=lambda line: None)  # this one may

    path = run_study("own", tmp_path, recipes=GRID[:1], jobs=1, device="cpu", tell=again)
    assert len(rows(path)) == 1


def test_a_device_that_is_not_there_is_noticed_before_the_work(tmp_path):
    lines, tell = told()
    with pytest.raises(ValueError, match="device='tpu' cannot be used here"):
        run_study("own", tmp_path, recipes=GRID, device="tpu", tell=tell)
    assert not lines and not (tmp_path / "own.jsonl").exists()


def test_data_that_cannot_be_had_is_noticed_before_the_work(tmp_path):
    lines, tell = told()
    grid = (preset("cifar10-tame", steps=1, warmup=0),)
    with pytest.raises(DataError, match="no CIFAR-10 in"):
        run_study("own", tmp_path, recipes=grid, jobs=1, device="cpu", data_folder=tmp_path / "none", tell=tell)
    assert not lines and not (tmp_path / "own.jsonl").exists()


def test_recipes_and_studies_need_no_torch():
    code = """
import sys
from normviz.lab import PRESETS, STUDIES, Recipe, load_study, preset, summary, verdict
from normviz.__main__ import main
assert len(STUDIES) > 20 and main(["study", "--list"]) == 0
assert verdict(load_study("tame")[0]).kind
sys.exit("torch" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)


def test_grids_compare_arms_on_equal_terms():
    """Every setting and seed of a study is run with the same set of arms, and no run is there twice."""
    for name, one in STUDIES.items():
        assert len(set(one.recipes)) == len(one.recipes), name
        if name in ("choices", "memory", "memory-deep"):
            continue  # these change something else than the arm
        arms = {recipe.arm for recipe in one.recipes}
        groups = {}
        for recipe in one.recipes:
            groups.setdefault(replace(recipe, arm="ln"), set()).add(recipe.arm)
        assert all(group == arms for group in groups.values()), name
    for name in ("tame", "heavy", "swiglu", "midrun", "deep"):
        assert len(STUDIES[name].recipes) == 15
        assert {recipe.seed for recipe in STUDIES[name].recipes} == set(range(5))


def test_a_study_that_decides_says_how_and_is_judged_on_seeds_of_its_own():
    choosing = {"choices": {90}, "fair": {90, 91, 92}, "cifar10": {90, 91, 92}}
    deciding = ("memory", "memory-deep", "initial", "slot", "longer", "fair", "successors", "ghost", "half")
    for name in ("choices", *deciding):
        assert STUDIES[name].rule or name == "choices", name
        seeds = {recipe.seed for recipe in STUDIES[name].recipes}
        assert seeds == choosing.get(name, set(range(100, 110)) if name == "initial" else set(JUDGED)), name


def test_missing_record_says_how_to_make_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m normviz study heavy"):
        load_study("heavy", tmp_path)


def test_the_projects_own_records_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(load_study("tame")) == 15
    assert (results_folder() / "README.md").is_file()


def test_every_package_and_the_records_are_installed():
    """pyproject lists the packages by name, so that results/ can be one: none may be forgotten."""
    from pathlib import Path

    root = Path(__file__).resolve().parent.parent
    text = (root / "pyproject.toml").read_text(encoding="utf-8").split("packages = [")[1].split("]")[0]
    folders = {file.parent.relative_to(root) for file in (root / "normviz").rglob("*.py")}
    data = {"normviz.results", "normviz.data"}  # no code, but files that travel along
    assert {".".join(folder.parts) for folder in folders} | data == set(re.findall(r'"([\w.]+)"', text))
