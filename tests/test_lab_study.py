"""Studies and the two commands: resumable run by run, nothing dropped, errors that say what to do."""

import json
from dataclasses import replace

import pytest

from normviz.lab import STUDIES, History, load_study, preset, run_study, summary
from normviz.lab.cli import main

GRID = tuple(
    preset("tame", arm, seed, depth=1, width=12, steps=4, warmup=1, eval_every=4, probe_every=2)
    for seed in range(2)
    for arm in ("ln", "bn")
)


def told():
    lines = []
    return lines, lines.append


def test_study_records_every_run_and_resumes(tmp_path):
    lines, tell = told()
    run_study("own", tmp_path, recipes=GRID, jobs=1, device="cpu", tell=tell)
    assert lines[0] == "study own: 0 of 4 runs recorded, 1 at a time" and len(lines) == 5
    assert [history.recipe for history in load_study("own", tmp_path)] == list(GRID)

    path = tmp_path / "own.json"
    record = json.loads(path.read_text())
    kept, lost = record["runs"][:3], record["runs"][3]
    kept[0]["loss"] = [9.0, 9.0, 9.0, 9.0]  # a mark: recorded runs are not run again
    kept[1] = {"recipe": kept[1]["recipe"], "error": "MemoryError: "}  # a failed one is
    path.write_text(json.dumps(record | {"runs": kept}))
    lines, tell = told()
    run_study("own", tmp_path, recipes=GRID, jobs=1, device="cpu", tell=tell)
    assert lines[0].startswith("study own: 2 of 4 runs recorded")
    again = json.loads(path.read_text())["runs"]
    assert again[0]["loss"] == [9.0] * 4
    assert again[1]["loss"] == record["runs"][1].get("loss", again[1]["loss"]) and "error" not in again[1]
    assert again[3]["loss"] == lost["loss"]


def test_two_processes_give_what_one_gives(tmp_path):
    for name, jobs in (("one", 1), ("two", 2)):
        run_study(name, tmp_path, recipes=GRID, jobs=jobs, device="cpu", tell=lambda line: None)
    one, two = (load_study(name, tmp_path) for name in ("one", "two"))
    assert [h.loss for h in one] == [h.loss for h in two]
    assert all(history.meta["threads"] == 1 for history in two)


def test_failed_run_is_recorded_and_does_not_stop_the_study(tmp_path):
    bad = replace(GRID[0], batch=1501)
    path = run_study("own", tmp_path, recipes=(bad, GRID[1]), jobs=1, device="cpu", tell=lambda line: None)
    rows = json.loads(path.read_text())["runs"]
    assert "batch=1501 is more than" in rows[0]["error"] and rows[1]["verdict"]["kind"] == "stalled"
    assert len(load_study("own", tmp_path)) == 1


def test_record_of_another_grid_is_not_overwritten(tmp_path):
    run_study("own", tmp_path, recipes=GRID[:1], jobs=1, device="cpu", tell=lambda line: None)
    before = (tmp_path / "own.json").read_bytes()
    with pytest.raises(ValueError, match="holds 1 runs that are not in the study's grid"):
        run_study("own", tmp_path, recipes=GRID[1:], jobs=1, device="cpu")
    assert (tmp_path / "own.json").read_bytes() == before


def test_summary_has_means_spreads_and_counts():
    def run(arm, seed, loss, accuracy):
        evals = [{"step": 20, "loss": 0.1, "accuracy": accuracy}]
        return History(preset("tame", arm, seed), [loss] * 20, evals, meta={"classes": 10})

    rows = summary([run("ln", 0, 0.1, 0.9), run("bn", 0, 2.3, 0.1), run("ln", 1, 0.3, 0.8)])
    assert [row["arm"] for row in rows] == ["ln", "bn"]
    assert rows[0]["runs"] == 2 and rows[0]["verdicts"] == {"trained": 2}
    assert rows[0]["loss"] == (pytest.approx(0.2), pytest.approx(0.1414, rel=1e-3))
    assert rows[0]["accuracy"] == (pytest.approx(0.85), pytest.approx(0.0707, rel=1e-3))
    assert rows[1]["verdicts"] == {"stalled": 1}


def test_grids_compare_arms_on_equal_terms():
    """Every setting and seed of a study is run with the same set of arms, and no run is there twice."""
    for name, study in STUDIES.items():
        assert len(set(study.recipes)) == len(study.recipes), name
        arms = {recipe.arm for recipe in study.recipes}
        groups = {}
        for recipe in study.recipes:
            groups.setdefault(replace(recipe, arm="ln"), set()).add(recipe.arm)
        assert all(group == arms for group in groups.values()), name
    for name in ("tame", "heavy", "swiglu", "midrun", "deep"):
        assert len(STUDIES[name].recipes) == 15
        assert {recipe.seed for recipe in STUDIES[name].recipes} == set(range(5))


SHORT = ["--device", "cpu", "--set", "depth=1", "--set", "steps=4", "--set", "warmup=1", "--quiet"]


def test_train_command_writes_resumes_and_judges(tmp_path, capsys):
    line = ["train", "--preset", "swiglu", "--arm", "bn", "--seed", "3", "--out", str(tmp_path), *SHORT]
    assert main(line) == 0
    first = capsys.readouterr().out
    assert first.startswith("swiglu bn seed 3: stalled (final loss")
    history = History.load(tmp_path / "history.json")
    assert history.recipe == preset("swiglu", "bn", 3, depth=1, steps=4, warmup=1)
    assert main([*line, "--resume"]) == 0
    assert capsys.readouterr().out == first


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (["train", "--preset", "tume"], "preset='tume' is unknown; it takes one of tame, heavy"),
        (["train", "--arm", "lm"], "arm='lm' is unknown; it takes one of ln, bn"),
        (
            ["train", "--set", "colour=1"],
            "--set colour=1: it takes FIELD=VALUE with a field of model, ffn, data",
        ),
        (["train", "--set", "steps"], "--set steps: it takes FIELD=VALUE"),
        (["train", "--set", "steps=many"], "steps='many' must be an integer >= 1"),
        (["train", "--set", "lr=fast"], "lr='fast' must be a positive number"),
        (["train", "--resume"], "resume=True needs out="),
        (["train", "--preset", "cifar10-heavy", "--data-folder", "nowhere"], "no CIFAR-10 in nowhere"),
        (["study", "fame"], "study='fame' is unknown; it takes one of tame, heavy"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(line, says, capsys):
    assert main([*line, "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"normviz {line[0]}: ") and says in error and error.count("\n") == 1


def test_study_without_a_name_lists_them(capsys):
    assert main(["study"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(STUDIES)


def test_missing_record_says_how_to_make_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m normviz study heavy"):
        load_study("heavy", tmp_path)


def test_the_projects_own_records_are_found_from_anywhere(tmp_path, monkeypatch):
    from normviz.lab.study import results_folder

    monkeypatch.chdir(tmp_path)
    assert len(load_study("tame")) == 15
    assert (results_folder() / "README.md").is_file()


def test_every_package_and_the_records_are_installed():
    """pyproject lists the packages by name, so that results/ can be one: none may be forgotten."""
    from pathlib import Path

    root = Path(__file__).resolve().parent.parent
    named = (root / "pyproject.toml").read_text(encoding="utf-8").split("packages = [")[1].split("]")[0]
    folders = {file.parent.relative_to(root) for file in (root / "normviz").rglob("*.py")}
    assert {".".join(folder.parts) for folder in folders} | {"normviz.results"} == set(
        named.replace('"', "").replace(" ", "").split(",")
    )
