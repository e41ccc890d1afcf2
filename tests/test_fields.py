"""Fields: what they take, what they refuse, and in which words."""

from dataclasses import dataclass, fields

import numpy as np
import pytest

from normviz.fields import check, choice, flag, integer, number, parse, text


@dataclass(frozen=True)
class Settings:
    count: int = integer(4, 1, 8, "how many")
    clip: float | None = number(None, above=0, none="for no clipping")
    part: float = number(0.5, least=0, most=1, step=0.1, label="part")
    method: str = choice("batch", {"BatchNorm": "batch", "LayerNorm": "layer"}, "method")
    eps: float = choice(1e-5, [1e-3, 1e-5])
    size: int | None = choice(None, [None, 8])
    flip: bool = flag(False, "mirrored", help="mirror it")
    name: str = text("mine")

    def __post_init__(self):
        check(self)


BY_NAME = {field.name: field for field in fields(Settings)}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("count", 0, "count=0 must be an integer >= 1 and <= 8"),
        ("count", 9, "count=9 must be"),
        ("count", 4.0, "count=4.0 must be an integer"),
        ("count", True, "count=True must be an integer"),
        ("count", "4", "count='4' must be an integer"),
        ("count", None, "count=None must be an integer"),
        ("clip", 0, "clip=0 must be a positive number, or None for no clipping"),
        ("clip", float("nan"), "clip=nan must be a positive number"),
        ("clip", [1.0], r"clip=\[1.0\] must be a positive number"),
        ("part", 1.5, "part=1.5 must be a number >= 0 and <= 1"),
        ("method", "bacth", "method='bacth' is unknown; it takes one of batch, layer. Did you mean 'batch'?"),
        ("method", ["batch"], "is unknown; it takes one of batch, layer$"),
        ("method", np.array(["batch", "layer"]), "is unknown"),
        ("size", True, "size=True is unknown; it takes one of None, 8"),
        ("eps", 1e-4, "eps=0.0001 is unknown; it takes one of 0.001, 1e-05"),
        ("flip", 1, "flip=1 must be True or False"),
        ("flip", "false", "flip='false' must be True or False"),
        ("name", 3, "name=3 must be a string"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_what_is_taken(name, value, message):
    with pytest.raises(ValueError, match=message):
        Settings(**{name: value})


def test_numpys_scalars_are_taken_and_become_pythons():
    made = Settings(
        count=np.int64(3), part=np.float32(0.25), eps=np.float64(1e-3), size=np.int8(8), flip=np.bool_(True)
    )
    assert made == Settings(count=3, part=0.25, eps=1e-3, size=8, flip=True)
    assert [type(v) for v in (made.count, made.part, made.eps, made.size, made.flip)] == [int, float, float, int, bool]


@pytest.mark.parametrize(
    ("name", "word", "value"),
    [
        ("count", "8", 8),
        ("clip", "none", None),
        ("clip", "None", None),
        ("clip", "1e-2", 0.01),
        ("method", "layer", "layer"),
        ("method", "LayerNorm", "layer"),
        ("eps", "0.001", 1e-3),
        ("size", "None", None),
        ("size", "8", 8),
        *(("flip", word, True) for word in ("true", "yes", "on", "1", "True")),
        *(("flip", word, False) for word in ("false", "no", "off", "0", "False")),
        ("name", "yours", "yours"),
    ],
)
def test_a_word_of_the_command_line_becomes_the_value(name, word, value):
    assert parse(BY_NAME[name], word) == value and type(parse(BY_NAME[name], word)) is type(value)


@pytest.mark.parametrize(
    ("name", "word", "message"),
    [
        ("count", "4.5", "count='4.5' must be an integer"),
        ("count", "99", "count=99 must be"),
        ("count", "none", "count='none' must be"),
        ("clip", "__import__('os')", "must be a positive number"),
        ("part", "inf", "part=inf must be a number"),
        ("flip", "maybe", "flip='maybe' must be True or False"),
        ("method", "group", "method='group' is unknown"),
    ],
)
def test_a_word_that_stands_for_no_value_is_refused(name, word, message):
    with pytest.raises(ValueError, match=message):
        parse(BY_NAME[name], word)


def test_a_field_says_all_that_a_control_needs():
    kinds = {name: field.metadata["kind"] for name, field in BY_NAME.items()}
    assert kinds == {
        "count": "integer", "clip": "number", "part": "number", "method": "choice", "eps": "choice", "size": "choice",
        "flip": "flag", "name": "text",
    }  # fmt: skip
    assert BY_NAME["method"].metadata["options"] == ("batch", "layer")
    assert BY_NAME["method"].metadata["labels"] == ("BatchNorm", "LayerNorm")
    assert [BY_NAME["part"].metadata[k] for k in ("least", "most", "step", "label")] == [0, 1, 0.1, "part"]
    assert (BY_NAME["count"].metadata["step"], BY_NAME["flip"].metadata["help"]) == (1, "mirror it")
