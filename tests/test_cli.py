"""`python -m normviz`: its commands, the flags that recipes give it, exit codes, and files that stay whole."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields

import numpy as np
import pytest

from normviz import __main__ as cli
from normviz import doctor
from normviz.__main__ import COMMANDS, main
from normviz.lab import STUDIES, History, Recipe, load_costs, preset, run_study, study, timing
from normviz.lab.studies import Study

UNIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
SHORT = ["--device", "cpu", "--depth", "1", "--steps", "4", "--warmup", "1", "--quiet"]


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, command in COMMANDS.items():
        assert name in text and command.__doc__ in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"python -m normviz {command}" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out.startswith("normviz 0.")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "command"),
        (["image"], "Did you mean 'images'?"),
        (["images", "--into", "x"], "--into"),
        (["doctor", "now"], "now"),
        (["train", "extra"], "python -m normviz train: error: unrecognized arguments: extra"),
        (["train", "--stepz", "4"], "Did you mean '--steps'?"),
        (["trian"], "command='trian' is unknown; it takes one of images, train"),
        (["trian"], "Did you mean 'train'?"),
        (["train", "--checkpoint-every", "0"], "'0' must be an integer >= 1"),
        (["train", "--out", ""], "'' is no folder"),
        (["bench", "--threads", "0"], "'0' must be an integer >= 1"),
        (["study", "tame", "--jobs", "none"], "'none' must be an integer >= 1"),
    ],
)
def test_a_mistake_is_named_and_ends_with_2(arguments, word, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert word in capsys.readouterr().err
    assert not list(tmp_path.iterdir())  # nothing drawn, nothing left behind


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (["train", "--preset", "swigl"], "preset='swigl' is unknown; it takes one of tame, heavy"),
        (["train", "--preset", "swigl"], "Did you mean 'swiglu'?"),
        (["train", "--arm", "lm"], "arm='lm' is unknown; it takes one of ln, bn"),
        (["train", "--set", "colour=1"], "--set colour=1: it takes FIELD=VALUE"),
        (["train", "--set", "dept=1"], "Did you mean 'depth'?"),
        (["train", "--set", "steps"], "--set steps: it takes FIELD=VALUE"),
        (["train", "--steps", "many"], "steps='many' must be an integer >= 1"),
        (["train", "--set", "flip=perhaps"], "flip='perhaps' must be True or False"),
        (["train", "--lr", "__import__('os')"], "must be a positive number"),
        (["train", "--seed", str(2**70)], f"seed={2**70} must be an integer >= 0 and <= {2**63 - 1}"),
        (["train", "--resume"], "--resume) needs out=… (--out)"),
        (["train", "--device", "tpu"], "device='tpu' cannot be used here"),
        (["train", "--preset", "cifar10-heavy", "--data-folder", "nowhere"], "no CIFAR-10 in nowhere"),
        (["study", "tame", "--device", "tpu"], "device='tpu' cannot be used here"),
        (["study", "fame"], "study='fame' is unknown; it takes one of tame, heavy"),
        (["claims", "--results", "nowhere"], "--results nowhere: there is no such folder"),
        (["bench", "--results", "nowhere"], "--results nowhere: there is no such folder"),
        (["images", "nothing.png"], "image='nothing.png' is unknown; it takes one of"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(line, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(line) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"normviz {line[0]}: ") and says in error and error.count("\n") == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_unwritable_place_is_noticed_before_the_work(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    there = str(tmp_path / "file" / "folder")
    for line in (["train", *SHORT, "--out", there], ["study", "tame", "--results", there], ["images", "--out", there]):
        assert main(line) == 2
        error = capsys.readouterr().err
        assert "file" in error and error.count("\n") == 1


# Recipes ------------------------------------------------------------------------------------------------------


def recipe_of(*words) -> Recipe:
    options = cli.parser().parse_args(["train", *words])
    return preset(options.preset, **cli._overrides(options))


def test_every_field_of_a_recipe_has_a_flag(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    for field in fields(Recipe):
        assert field.name == "name" or f"--{field.name.replace('_', '-')}" in text


@pytest.mark.parametrize("value", ["false", "no", "off", "0", "False"])
def test_a_flag_that_is_set_to_false_is_off(value):
    assert recipe_of("--preset", "cifar10-tame", "--set", f"flip={value}").flip is False


def test_flags_become_fields():
    found = recipe_of(
        "--arm", "bn", "--seed", "3", "--lr", "1e-3", "--flip", "--clip", "none", "--ghost-tokens", "64",
        "--set", "arm=bn+ffnbn", "--set", "sigma=0.5",
    )  # fmt: skip
    assert found == preset("swiglu", "bn+ffnbn", 3, lr=1e-3, flip=True, clip=None, ghost_tokens=64, sigma=0.5)
    assert recipe_of("--preset", "cifar10-tame", "--no-flip").flip is False
    assert recipe_of("--preset", "cifar10-tame").flip is True


def test_train_writes_resumes_and_judges(tmp_path, capsys):
    line = ["train", "--preset", "swiglu", "--arm", "bn", "--seed", "3", "--out", str(tmp_path), *SHORT]
    assert main(line) == 0
    first = capsys.readouterr().out
    assert first.startswith("swiglu bn seed 3: stalled (final loss")
    history = History.load(tmp_path / "history.json")
    assert history.recipe == preset("swiglu", "bn", 3, depth=1, steps=4, warmup=1)
    assert main([*line, "--resume"]) == 0
    assert capsys.readouterr().out == first
    assert main(line) == 2 and "holds this run up to step 4" in capsys.readouterr().err


@UNIX
def test_ctrl_c_says_how_to_resume_and_ends_with_130(tmp_path):
    line = [sys.executable, "-m", "normviz", "train", *SHORT, "--steps", "100000", "--checkpoint-every", "5"]
    run = subprocess.Popen([*line, "--out", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 100
    while not list(tmp_path.glob("step-*")) and time.monotonic() < until:
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    try:
        out, error = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 130, error
    assert "stopped after" in out and "the same command with --resume goes on" in out and "Traceback" not in error
    assert "stalled" not in out  # nobody judges an unfinished run
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [".lock"]


# Studies, timings, claims ---------------------------------------------------------------------------------------


def test_study_without_a_name_lists_them(capsys):
    for line in (["study"], ["study", "--list"]):
        assert main(line) == 0
        listed = [text.split()[0] for text in capsys.readouterr().out.splitlines() if text[0] != " "]
        assert listed == list(STUDIES)


def test_the_list_of_studies_says_how_much_is_recorded_and_what_decides(tmp_path, capsys):
    run_study("memory", tmp_path, recipes=(), jobs=1, device="cpu", tell=lambda line: None)
    assert main(["study", "--list", "--results", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "memory" in text and "0 of 110 runs" in text
    assert "at least 80 % of the gap" in " ".join(text.split())


def test_a_study_whose_runs_failed_ends_with_1_and_says_how_many(tmp_path, capsys, monkeypatch):
    tiny = {"depth": 1, "width": 12, "steps": 4, "warmup": 1, "eval_every": 4, "probe_every": 0}
    sound, bad = preset("tame", "ln", **tiny), preset("tame", "ln", batch=1501, **tiny)
    grids = {"half": Study("", (sound, bad)), "none": Study("", (bad,)), "whole": Study("", (sound,))}
    monkeypatch.setattr(study, "STUDIES", grids)
    for name, code, says in (("half", 1, "1 of 2 runs failed"), ("none", 1, "1 of 1 runs failed"), ("whole", 0, "")):
        assert main(["study", name, "--results", str(tmp_path), "--jobs", "1", "--device", "cpu"]) == code
        captured = capsys.readouterr()
        assert says in captured.err and ("accuracy" in captured.out) == (name != "none")


@UNIX
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_study_that_ctrl_c_ends_keeps_whole_runs_only_and_goes_on_later(jobs, tmp_path):
    """One job runs in the process itself, where the training would take Ctrl-C for itself and the study go on."""
    line = [sys.executable, "-c", INTERRUPTED, str(tmp_path), jobs]
    run = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 100
    while not (tmp_path / "two.jsonl").exists() and time.monotonic() < until:  # the short run is recorded
        time.sleep(0.05)
    time.sleep(0.5)  # well into the long one
    run.send_signal(signal.SIGINT)
    _, error = run.communicate(timeout=60)
    assert run.returncode == 130 and "the same command goes on with the runs that are missing" in error
    assert "Traceback" not in error
    (row,) = map(json.loads, (tmp_path / "two.jsonl").read_text().splitlines())
    assert row["recipe"]["steps"] == 4 == len(row["loss"]) and row["meta"]["stopped"] is None


INTERRUPTED = """
import signal, sys
from normviz.__main__ import main
from normviz.lab import preset, study
from normviz.lab.studies import Study

signal.signal(signal.SIGINT, signal.default_int_handler)
tiny = {"depth": 1, "width": 12, "warmup": 1, "eval_every": 10**6, "probe_every": 0}
study.STUDIES = {"two": Study("", tuple(preset("tame", "ln", steps=steps, **tiny) for steps in (4, 10**6)))}
sys.exit(main(["study", "two", "--results", sys.argv[1], "--jobs", sys.argv[2], "--device", "cpu"]))
"""


def test_a_damaged_record_names_its_file(tmp_path, capsys):
    for content in ("[]\n", "{}\n", '{"runs": 5}\n', "null\n", "nonsense\n"):
        (tmp_path / "tame.jsonl").write_text(content)
        for line in (["study", "tame", "--device", "cpu"], ["claims"]):
            assert main([*line, "--results", str(tmp_path)]) == 2
            assert "tame.jsonl, line 1 is damaged" in capsys.readouterr().err


def bench(tmp_path, *words):
    return main(["bench", "--no-compile", "--device", "cpu", "--results", str(tmp_path), *words])


def test_a_quick_bench_and_an_interrupted_one_leave_the_record_alone(tmp_path, capsys, monkeypatch):
    full = {"environment": {"device": "cpu"}, "networks": ["all"]}
    (tmp_path / "cost-cpu.json").write_text(json.dumps(full))
    assert bench(tmp_path, "--quick") == 0
    quick = json.loads((tmp_path / "quick-cost-cpu.json").read_text())
    assert quick["environment"]["threads"] == 1 and quick["not_compiled"]
    assert {row["network"] for row in quick["networks"]} == {"ours"} and "recorded in" in capsys.readouterr().out

    def interrupted(*, save, **options):
        save({"environment": {"device": "cpu"}, "networks": ["some"]})
        raise KeyboardInterrupt

    monkeypatch.setattr(timing, "measure_costs", interrupted)
    assert bench(tmp_path) == 130 and "partial-cost" in capsys.readouterr().err
    assert load_costs(tmp_path) == [full]
    assert json.loads((tmp_path / "partial-cost-cpu.json").read_text())["networks"] == ["some"]
    whole = {"environment": {"device": "cpu"}, "networks": ["new"], "not_compiled": None}
    monkeypatch.setattr(timing, "measure_costs", lambda *, save, **options: save(whole) and whole)
    assert bench(tmp_path) == 0 and load_costs(tmp_path) == [whole]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cost-cpu.json", "quick-cost-cpu.json"]


def test_claims_are_written_whole_or_not_at_all(tmp_path, capsys, monkeypatch):
    from normviz.lab.claims import BEGIN, END

    file = tmp_path / "README.md"
    file.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    monkeypatch.setattr(os, "replace", lambda *names: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert main(["claims", "--results", str(tmp_path), "--write", str(file)]) == 2
    assert "No space left" in capsys.readouterr().err
    assert file.read_text(encoding="utf-8").split() == f"before {BEGIN} old {END} after".split()
    monkeypatch.undo()
    assert main(["claims", "--results", str(tmp_path), "--write", str(file)]) == 0
    text = file.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("after\n") and "not yet measured" in text
    (tmp_path / "other.md").write_text("no markers")
    assert main(["claims", "--results", str(tmp_path), "--write", str(tmp_path / "other.md")]) == 2
    assert "it needs the line" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_output_that_is_not_utf_8_is_no_reason_to_stop(encoding, tmp_path):
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    for line in (["study"], ["claims", "--results", str(tmp_path)], ["train", "--help"]):
        run = subprocess.run(
            [sys.executable, "-m", "normviz", *line], capture_output=True, env=environment, timeout=120
        )
        assert run.returncode == 0 and run.stdout, run.stderr


def test_images_writes_only_what_is_asked_for(tmp_path, capsys):
    assert main(["images", "ln.png", "--out", str(tmp_path / "new")]) == 0
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["ln.png"]
    assert capsys.readouterr().out.strip() == str(tmp_path / "new" / "ln.png")


def test_doctor_says_what_is_here(capsys):
    code = main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    states = dict(line.split(": ", 1)[0].split(None, 1)[::-1] for line in lines[:-1])
    some = {"Python", "packages", "device", "loopback", "digits", "CIFAR-10", "recorded runs", "disk here"}
    assert some <= set(states)
    lacking = [name for name, state in states.items() if state == "lacks"]
    assert code == int(bool(lacking))
    assert lines[-1] == (f"To be mended: {', '.join(lacking)}." if lacking else doctor.verdict([]))
    assert f"numpy {np.__version__}" in lines[1]


def test_doctor_names_what_is_missing_or_too_old_and_ends_with_1(capsys, monkeypatch, tmp_path):
    needs = ["numpy>=99.1", "no-such-thing>=2", "nbval>=99; extra == 'test'", "rich>=99; extra == 'zoo'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: needs)
    monkeypatch.setattr(doctor, "_extension", lambda name: "1.0.0")
    monkeypatch.setattr(doctor, "_loopback", lambda: doctor.Finding("ok", "loopback", ""))
    monkeypatch.setenv("NORMVIZ_CIFAR10", str(tmp_path / "none"))
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert f'lacks  numpy: {np.__version__} does not do; pip install "numpy>=99.1"' in text
    assert 'lacks  no-such-thing: missing; pip install "no-such-thing>=2"' in text
    assert "note   nbval: " in text and "`make test` needs it" in text and "rich" not in text
    assert "lacks  ipywidgets in the browser: 1.0.0, which does not go with ipywidgets" in text
    assert "lacks  CIFAR-10: NORMVIZ_CIFAR10=" in text
    assert text.splitlines()[-1].startswith("To be mended: numpy, no-such-thing, ipywidgets in the browser")


@pytest.mark.parametrize(
    ("version", "bounds", "meets"),
    [
        ("2.4.6", ">=2.0", True), ("2.13.0+cpu", ">=2.4", True), ("2.4.0rc1", ">=2.4", True), ("1.26", ">=2.0", False),
        ("8.1.9", "<9,>=7.7.1", True), ("9.0", "<9,>=7.7.1", False), ("7.7", "<9,>=7.7.1", False), ("2", ">=2.0", True),
    ],
)  # fmt: skip
def test_doctor_compares_versions_by_their_numbers(version, bounds, meets):
    assert doctor._meets(version, bounds) is meets


def test_it_runs_as_a_module(tmp_path):
    line = [sys.executable, "-m", "normviz", "nonsense"]
    run = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert run.returncode == 2 and "nonsense" in run.stderr and "Traceback" not in run.stderr
