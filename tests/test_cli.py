"""`python -m normviz`: help, pictures, what is installed, and mistakes that end with exit code 2."""

import subprocess
import sys

import pytest

from normviz.__main__ import COMMANDS, PACKAGES, main


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert name in text and command.__doc__ in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"python -m normviz {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "command"),
        (["image"], "'image'"),
        (["images", "nothing.png"], "nothing.png"),
        (["images", "--into", "x"], "--into"),
        (["doctor", "now"], "now"),
    ],
)
def test_a_mistake_is_named_and_ends_with_2(arguments, word, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert word in capsys.readouterr().err
    assert not list(tmp_path.iterdir())  # nothing drawn, nothing left behind


def test_an_unknown_image_names_those_that_there_are(capsys):
    with pytest.raises(SystemExit):
        main(["images", "nothing.png"])
    assert "axes.png" in capsys.readouterr().err


def test_images_writes_only_what_is_asked_for(tmp_path, capsys):
    assert main(["images", "ln.png", "--out", str(tmp_path / "new")]) == 0
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["ln.png"]
    assert capsys.readouterr().out.strip() == str(tmp_path / "new" / "ln.png")


def test_doctor_tells_every_package(capsys):
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Python 3.")
    assert [line.split()[0] for line in lines[1 : 1 + len(PACKAGES)]] == list(PACKAGES)
    assert lines[-1].startswith("device: ")


def test_it_runs_as_a_module(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "normviz", "nonsense"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert run.returncode == 2 and "nonsense" in run.stderr and "Traceback" not in run.stderr
