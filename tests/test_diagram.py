"""The diagram of the ViT block says what is in the model, and refuses to draw what is not so."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from normviz import draw
from normviz.arms import ARMS, arms_of
from normviz.draw.vit import walk
from normviz.lab import ViT
from normviz.norms import METHODS
from normviz.picture.color import GREY, PAPER
from normviz.picture.scene import Label, Shapes, Strokes
from normviz.picture.svg import to_svg

vit_block = draw.vit_block_scene
SMALL = {"depth": 2, "width": 24, "heads": 3}
SHORT = {"LayerNorm": "LN over D", "BatchNorm1d": "BN over B, T", "RMSNorm": "RMS over D", "Identity": "empty"}
OWN = {"Gain": "× ", "DyT": "DyT", "Derf": "Derf", "PRepBN": "PRepBN", "RBN": "RBN"}  # not of the table: grey
COLOR = {row.short: row.color for row in METHODS.values()} | {"empty": PAPER}


def texts(scene):
    return [item.text for item in scene.items if isinstance(item, Label)]


def boxes(scene):
    """Fill by the name of the part, of a diagram of one model."""
    named = (i for i in scene.items if isinstance(i, Shapes) and i.name.startswith("part-"))
    return {item.name.removeprefix("part-"): item.fills[0] for item in named}


@pytest.mark.parametrize("ffn", ["gelu", "swiglu"])
@pytest.mark.parametrize("arm", arms_of("vit"))
def test_every_arm_is_drawn_as_its_modules_are(arm, ffn):
    model = ViT(arm, ffn=ffn, **SMALL)
    scene = vit_block(model)
    slots = model.blocks[0].slots | {"final": model.final}
    for name, module in slots.items():
        if own := OWN.get(type(module).__name__):
            (text,) = {t for t in texts(scene) if t.startswith(own) and not t.endswith(" block")}
            assert f"{name} {text}" in scene.alt and boxes(scene)[name] == GREY
            continue
        leaves = [m for m in module.modules() if not list(m.children())]
        norm = next(m for m in leaves if type(m).__name__ in SHORT)
        expected = SHORT[type(norm).__name__] + (" + cap 3" if len(leaves) > 1 else "")
        assert f"{name} {expected}" in scene.alt
        assert expected in texts(scene) and name in texts(scene)
        assert boxes(scene)[name] == COLOR[expected.split()[0]]
    empty = [item for item in scene.items if isinstance(item, Strokes) and item.name == "empty"]
    assert len(empty) == sum(isinstance(module, nn.Identity) for module in slots.values())
    assert all(item.dashed for item in empty)
    hidden = {"gelu": ["fc1: 24 → 96", "GELU"], "swiglu": ["fc1: 24 → 192", "SiLU(gate) × value"]}[ffn]
    assert {*hidden, "fc2: 96 → 24", "attention, 3 heads", "2 blocks like this one"} <= set(texts(scene))
    assert to_svg(scene).count('class="sum"') == to_svg(scene).count('class="skip"') == 2


def test_shapes_on_the_arrows_are_those_of_the_tensors():
    model = ViT("bn+ffnbn", ffn="swiglu", size=16, patch=4, width=30, heads=5, depth=1, ffn_ratio=3)
    handed = []
    block = model.blocks[0]
    for module in (block.norm1, block.attention, block.norm2, block.ffn.fc1, block.ffn.norm, block.ffn.fc2):
        module.register_forward_hook(lambda m, inputs, out: handed.append((inputs[0].shape[1:], out.shape[1:])))
    model(torch.zeros(2, 1, 16, 16))
    shapes = [part.shape for part in walk(model).parts if part.kind not in ("act", "sum")]
    assert shapes == [tuple(out) for _, out in handed]
    found = [text for text in texts(vit_block(model)) if text.startswith("(B, ")]
    wide = ["(B, 16, 180)", "(B, 16, 90)", "(B, 16, 90)"]
    assert found == ["(B, 16, 30)"] * 5 + wide + ["(B, 16, 30)"] * 2


def replaced(name, make):
    model = ViT("ln", **SMALL)
    target = model.blocks[0] if name != "norm" else model.blocks[0].ffn
    setattr(target, name, make())
    return model


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("norm1", nn.Identity, "norm1 empty"),
        ("norm2", lambda: nn.RMSNorm(24), "norm2 RMS over D"),
        ("norm", lambda: nn.GroupNorm(4, 16), "ffn_norm GN over T, D"),
        ("norm", lambda: nn.LayerNorm((16, 96)), "ffn_norm LN over T, D"),
        ("norm2", lambda: nn.Hardtanh(), "norm2 Hardtanh"),
    ],
)
def test_another_module_is_another_picture(name, make, says):
    before, after = vit_block(ViT("ln", **SMALL)), vit_block(replaced(name, make))
    assert says in after.alt and says not in before.alt
    assert to_svg(after) != to_svg(before)
    assert "block 0" in texts(after)  # the two blocks of the model are no longer alike


def test_the_model_stays_as_it_was():
    model = ViT("bn", seed=0, **SMALL).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    draw.vit_block(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.blocks[0].training and not any(m._forward_hooks for m in model.modules())


def test_side_by_side_and_in_rows():
    models = [ViT(arm, **SMALL) for arm in ("ln", "bn", "bn+ffnbn", "attn-ln", "ffnbn")]
    scene = vit_block(*models)
    names = ["LN", "BN", "BN + FFN-BN", "LN | BN", "FFN-BN alone"]
    assert [text for text in texts(scene) if text in names] == names
    assert all(f"of {name}: norm1 " in scene.alt for name in names)
    assert scene.height > 1.8 * vit_block(*models[:3]).height
    for item in scene.items:
        if isinstance(item, Label):
            assert 0 < item.x < scene.width and 0 < item.y < scene.height
    assert draw.vit_block(*models).alt == scene.alt


def test_a_diverged_model_is_drawn_all_the_same():
    for spoil in (float("nan"), float("inf"), 3e38):
        model = ViT("bn+ffnbn", **SMALL)
        same = vit_block(model).alt
        for weight in model.parameters():
            weight.data.fill_(spoil)
        model.blocks[0].norm1[0].running_var.fill_(spoil) if hasattr(model.blocks[0].norm1, "__getitem__") else None
        assert vit_block(model).alt == same
        assert not torch.isfinite(next(model.parameters())).all() or spoil == 3e38
        model.blocks[0] = PostNorm(model.blocks[0])
        with pytest.raises(ValueError, match="no diagram is drawn"):
            vit_block(model)


def test_colours_are_those_of_the_arms():
    assert COLOR["LN"] == ARMS["ln"].color and COLOR["BN"] == ARMS["bn"].color and COLOR["RMS"] == ARMS["rms"].color


class PostNorm(nn.Module):
    """The same parts in another order."""

    def __init__(self, block):
        super().__init__()
        self.attention, self.ffn, self.slots = block.attention, block.ffn, block.slots
        self.norm1, self.norm2 = block.norm1, block.norm2

    def forward(self, x):
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.ffn(x))


def test_what_cannot_be_drawn_is_refused():
    for wrong in (nn.Linear(2, 2), nn.TransformerEncoderLayer(8, 2), None):
        with pytest.raises(TypeError, match=r"has no norm slots in sight .*normviz\.lab\.ViT"):
            draw.vit_block(wrong)
    with pytest.raises(ValueError, match="needs a model"):
        draw.vit_block()
    with pytest.raises(ValueError, match="block=2 is not there; the model takes 0 to 1"):
        draw.vit_block(ViT("ln", **SMALL), block=2)
    model = ViT("ln", **SMALL)
    model.blocks[0] = PostNorm(model.blocks[0])
    with pytest.raises(ValueError, match="no diagram is drawn"):
        draw.vit_block(model)


def test_a_picture_needs_no_lab():
    heavy = ("normviz.lab", "torch", "matplotlib", "ipywidgets", "sklearn")
    code = f"import sys, normviz.draw; sys.exit(any(m.startswith({heavy}) for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
