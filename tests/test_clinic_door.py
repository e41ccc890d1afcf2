"""The clinic from a shell: `python -m normviz inspect MODULE:NAME`."""

import argparse
import subprocess
import sys

import pytest

from normviz.clinic import door


def command(*words):
    parser = argparse.ArgumentParser()
    door.add_arguments(parser.add_argument)
    return door.inspect(parser.parse_args(words))


@pytest.fixture
def _models(tmp_path, monkeypatch):
    (tmp_path / "wards.py").write_text(
        "import torch\nfrom torch import nn\n"
        "sound = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))\n"
        "def sick():\n    return nn.Sequential(nn.Linear(6, 8), nn.GroupNorm(8, 8)), torch.randn(5, 6)\n"
        "def nothing():\n    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("wards", None)


@pytest.mark.usefixtures("_models")
def test_a_model_by_its_path(capsys, tmp_path):
    assert command("wards:sound", "--input", "4,3,9,9", "--train") == 0
    assert "1 norm layer (1 × BatchNorm); 0 faults" in capsys.readouterr().out
    assert command("wards:sick", "--html", "report.html") == 1
    assert "FAULT   1: every set" in capsys.readouterr().out
    assert "every set" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("_models")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["wards"], "must be MODULE:NAME"),
        (["wards:lost"], "model='wards:lost' is not found"),
        (["nowhere:model"], "is not found"),
        (["wards:nothing"], "gives int"),
        (["wards:sound", "--input", "4,x"], "it takes sizes >= 1"),
        (["wards:sound", "--input", "4,5,9,9"], "fails in evaluation, in '0'"),
    ],
)
def test_what_does_not_work_is_a_sentence(words, message):
    with pytest.raises(ValueError, match=message):
        command(*words)


def test_the_door_loads_no_torch():
    code = "import sys, normviz.clinic.door, normviz.clinic; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
