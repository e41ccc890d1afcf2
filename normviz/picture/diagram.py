"""The ViT block as a diagram that is read off the model: what sits in the norm slots, and the shape on every arrow.

A copy of the block is run once on random tokens, with hooks on its parts.  The diagram shows these parts in the order
in which they ran, and is refused where the sums do not come out as it would say.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch

from normviz.methods import METHODS, ROLES, Method
from normviz.picture.colors import GREY, INK, MUTED, PAPER, mix, readable_on
from normviz.picture.curves import ARM_STYLES, with_caption
from normviz.picture.figures import NOTEBOOK_WIDTH
from normviz.picture.png import figure
from normviz.picture.scene import Label, Scene, Shapes, Strokes

SLOT_COLORS = {
    "batch": ARM_STYLES["bn"].color,
    "layer_token": ARM_STYLES["ln"].color,
    "rms": ARM_STYLES["rms"].color,
}
FFN_TEXT = {"gelu": "GELU", "swiglu": "SiLU(gate) × value"}
LINEAR, MIXING = "#E6E6E6", "#D9D9D9"  # what has no norm stays grey, so that the slots are what one sees


class Part(NamedTuple):
    """One box: `kind` is slot, attention, linear, act or sum; `shape` is that of what comes out, without B."""

    name: str
    kind: str
    text: str
    shape: tuple[int, ...]
    color: str = LINEAR
    empty: bool = False
    method: str = ""  # short name of what is in a slot


class Walk(NamedTuple):
    """A block as it ran: its parts, the shape that goes in, and what lies around it."""

    parts: tuple[Part, ...]
    shape: tuple[int, ...]
    block: int
    blocks: int  # in a row, alike in their slots
    final: Part | None
    embed: Part | None = None  # what stands after the patch embedding, where something does

    @property
    def slots(self) -> dict[str, Part]:
        found = {part.name: part for part in self.parts if part.kind == "slot"}
        return found | {part.name: part for part in (self.final, self.embed) if part}

    @property
    def name(self) -> str:
        """What is in the slots, in a few words: "BN + FFN-BN"."""
        norm1, norm2, inner = (self.slots[name] for name in ("norm1", "norm2", "ffn_norm"))
        front = norm1.method if norm1.method == norm2.method else f"{norm1.method} | {norm2.method}"
        if "ffn_norm_before" in self.slots:
            front += f" + FFN-{self.slots['ffn_norm_before'].method} before the activation"
        if self.embed:
            front += f" + {self.embed.method} on the embedding"
        if inner.empty:
            return front
        return f"FFN-{inner.method} alone" if norm1.empty and norm2.empty else f"{front} + FFN-{inner.method}"


def slot_part(name: str, module, shape: tuple[int, ...]) -> Part:
    """What a slot holds, named by the table of methods where it has it and by the module's class where not."""
    if text := getattr(module, "short", ""):
        return Part(name, "slot", text, shape, GREY, method=text)
    inner = [m for m in module.modules() if not list(m.children())]
    norm = next((m for m in inner if row_of(m)), inner[0])
    row = row_of(norm)
    if isinstance(norm, torch.nn.Identity):
        return Part(name, "slot", "empty", shape, PAPER, empty=True, method="nothing")
    extra = "".join(f" + {type(m).__name__.lower()} {_number_in(m)}".rstrip() for m in inner if m is not norm)
    if row is None:
        return Part(
            name, "slot", type(norm).__name__ + extra, shape, GREY, method=type(norm).__name__ + extra
        )
    short = row.short.split("-")[0]
    over = ", ".join(letter for letter in "BTD" if ROLES[letter] in row.over)
    return Part(
        name,
        "slot",
        f"{short} over {over}{extra}",
        shape,
        SLOT_COLORS.get(row.key, GREY),
        method=short + extra,
    )


def row_of(module) -> Method | None:
    """The row of `METHODS` that a torch module belongs to."""
    kind, size = type(module).__name__, getattr(module, "normalized_shape", None)
    per_token = size is not None and len(size) == 1  # one class serves both kinds of LayerNorm
    rows = [row for row in METHODS.values() if re.fullmatch(row.torch_class.replace("{d}", "[123]"), kind)]
    return next((row for row in rows if len(rows) == 1 or (row.feature_axis == "last") == per_token), None)


def _number_in(module) -> str:
    return "".join(re.findall(r"[\d.]+", module.extra_repr())[:1]).removesuffix(".0")


def walk(model, block: int = 0) -> Walk:
    """Run a copy of one block of the model on random tokens, and say what ran, in which order, on which shapes.

    model: `.blocks`, each with `.slots` (norm1, norm2, ffn_norm), `.attention` (with `.heads`) and `.ffn` (with
    `.kind`, `.fc1`, `.norm`, `.fc2`), and `.embedding.tokens`; `.final`, if it is there, is shown too.

    Raises TypeError if the model lacks one of these, ValueError for a block that it has not, or one that is not
    x + attention(norm1(x)), then x + ffn(norm2(x)).
    """
    try:
        layers, tokens = list(model.blocks), int(model.embedding.tokens)
        slots = [dict(b.slots) for b in layers]
        _ = [each[name] for each in slots for name in ("norm1", "norm2", "ffn_norm")]
        parts = [b.attention for b in layers], [(b.ffn.kind, b.ffn.fc1, b.ffn.fc2) for b in layers]
        width, heads = int(layers[0].ffn.fc1.in_features), [int(a.heads) for a in parts[0]]
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise TypeError(
            f"model={type(model).__name__} has no norm slots in sight ({error}); it takes a model whose blocks "
            "have slots norm1, norm2 and ffn_norm, such as normviz.lab.ViT"
        ) from None
    if not 0 <= block < len(layers):
        raise ValueError(f"block={block!r} is not there; the model takes 0 to {len(layers) - 1}")

    seen, x = _run(layers[block], tokens, width)
    found, shape = [], tuple(x.shape[1:])
    for name, output in seen.items():
        after = tuple(output.shape[1:])
        if name in slots[block]:
            part = slot_part(name, slots[block][name], after)
            if name == "ffn_norm":  # the nonlinearity is a function, and seen by what it hands on
                found.append(
                    Part(
                        "act",
                        "act",
                        FFN_TEXT.get(layers[block].ffn.kind, layers[block].ffn.kind),
                        after,
                        MIXING,
                    )
                )
            found.append(part)
        elif name == "attention":
            found.append(Part(name, "attention", f"attention, {heads[block]} heads", after, MIXING))
        else:
            layer = getattr(layers[block].ffn, name)
            found.append(Part(name, "linear", f"{name}: {layer.in_features} → {layer.out_features}", after))
        if name in ("attention", "fc2"):
            found.append(Part("+", "sum", "+", after, PAPER))
    final = slot_part("final", model.final, shape) if hasattr(model, "final") else None
    like = [[slot_part(name, m, shape).text for name, m in each.items()] for each in slots]
    alike = all(row == like[block] for row in like)
    embed = slot_part("embed_norm", getattr(model, "embed_norm", torch.nn.Identity()), shape)
    return Walk(
        tuple(found), shape, block, len(layers) if alike else 1, final, None if embed.empty else embed
    )


@torch.no_grad()
def _run(block, tokens: int, width: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Outputs by name in the order of running, and the input; the block itself stays as it is."""
    block = copy.deepcopy(block).eval()
    for module in block.modules():  # hooks are copied along, and this run is not for others to see
        module._forward_hooks.clear(), module._forward_pre_hooks.clear()
    like = next((p for p in block.parameters()), torch.zeros(1))
    x = torch.randn(2, tokens, width, generator=torch.Generator().manual_seed(0)).to(like)
    ffn = block.ffn
    named = {"norm1": block.slots["norm1"], "attention": block.attention, "norm2": block.slots["norm2"]}
    inner = [name for name in ("ffn_norm_before", "ffn_norm") if name in block.slots]
    named |= {"fc1": ffn.fc1, **{name: block.slots[name] for name in inner}, "fc2": ffn.fc2}
    seen, given = {}, {}

    def hook(name):
        def note(module, inputs, output):
            given[name], seen[name] = inputs[0], output

        return note

    for name, module in named.items():
        module.register_forward_hook(hook(name))
    out = block(x)
    # In the order it is drawn in, with the sums where they are drawn: a picture that only looks right is wrong
    feeds = (("attention", "norm1"), ("fc1", "norm2"), ("fc2", "ffn_norm"))
    right = list(seen) == list(named) and all(torch.equal(given[a], seen[b]) for a, b in feeds)
    right = right and torch.equal(given["norm1"], x)
    right = right and ("ffn_norm_before" not in named or torch.equal(given["ffn_norm_before"], seen["fc1"]))
    if not right or not all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-4)
        for a, b in ((given["norm2"], x + seen["attention"]), (out, given["norm2"] + seen["fc2"]))
    ):
        raise ValueError(
            f"the block ran {', '.join(seen)}, but not as x + attention(norm1(x)), then x + ffn(norm2(x)): "
            "no diagram is drawn of it"
        )
    return seen, x


# Drawing ---------------------------------------------------------------------------------------------------

PANEL, SPINE, HALF, SKIP = 312.0, 152.0, 84.0, 40.0  # px: a column, its main line, half a box, the skip line
TALL = {"slot": 32.0, "attention": 30.0, "linear": 30.0, "act": 30.0, "sum": 20.0}
ARROW = 27.0


def _size(shape: Iterable[int]) -> str:
    return f"(B, {', '.join(map(str, shape))})"


def _box(x: float, y: float, width: float, height: float) -> np.ndarray:
    return np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height)])


def _outline(corners: np.ndarray) -> np.ndarray:
    return np.stack([corners, np.roll(corners, -1, axis=0)], axis=1)


def _arrow(x: float, y: float, end: float, text: str = "") -> list:
    tip = np.array([[(x, end), (x - 4, end - 7), (x + 4, end - 7)]])
    items = [Strokes(np.array([[(x, y), (x, end - 5)]]), INK, 1.3), Shapes(tip, [INK], name="arrow")]
    return [*items, Label(x + 9, (y + end) / 2 + 4, text, color=MUTED)] if text else items


def _part(part: Part, left: float, y: float) -> list:
    """A box, a slot or a sum, its top at y."""
    x, tall = left + SPINE, TALL[part.kind]
    middle = y + tall / 2
    if part.kind == "sum":
        angles = 2 * np.pi * np.arange(24) / 24
        ring = np.array([(x, middle)]) + 10 * np.stack([np.sin(angles), np.cos(angles)], axis=1)
        return [
            Shapes(ring[None], [PAPER], ["sum"], stroke=INK, width=1.3, name="sum"),
            Label(x, middle + 5, "+", 15, "middle", bold=True),
        ]
    corners = _box(x - HALF, y, 2 * HALF, tall)
    lit = part.kind == "slot" and not part.empty
    title = [f"{part.name}: {part.text}"]
    style = {"stroke": INK, "width": 2.0 if lit else 0.8} if not part.empty else {}
    items: list = [Shapes(corners[None], [part.color], title, name=f"part-{part.name}", **style)]
    if part.empty:
        items.append(Strokes(_outline(corners), MUTED, 1.3, dashed=True, name="empty"))
    ink = MUTED if part.empty else readable_on(part.color)
    items.append(
        Label(x, middle + 4.5, part.text, 13 if part.kind == "slot" else 12, "middle", ink, bold=lit)
    )
    if part.kind == "slot":
        items.append(Label(x + HALF + 7, middle + 4.5, part.name, bold=True))
    return items


def _skip(left: float, y: float, end: float) -> list:
    """The line around a branch, from the main line to its sum."""
    x, spine = left + SKIP, left + SPINE
    points = np.array([(spine, y), (x, y), (x, end), (spine - 17, end)])
    tip = np.array([[(spine - 10, end), (spine - 17, end - 4), (spine - 17, end + 4)]])
    return [
        Strokes(np.stack([points[:-1], points[1:]], axis=1), INK, 1.3, name="skip"),
        Shapes(tip, [INK], name="arrow"),
    ]


def _column(found: Walk, left: float, top: float) -> tuple[list, float]:
    """One block from top to bottom, and where it ends."""
    many = f"{found.blocks} blocks like this one" if found.blocks > 1 else f"block {found.block}"
    items: list = [
        Label(left + 12, top, found.name, 15, bold=True),
        Label(left + 12, top + 18, many, color=MUTED),
    ]
    y, shape, begin, ffn = top + 30, found.shape, None, None
    for part in found.parts:
        end = y + ARROW
        items += _arrow(left + SPINE, y, end, _size(shape))
        if begin is None:
            begin = y + 5.0
        if part.name == "fc1":
            ffn = end - 7
        items += _part(part, left, end)
        if part.kind == "sum":
            items += _skip(left, begin, end + TALL["sum"] / 2)
            begin = None
        y, shape = end + TALL[part.kind], part.shape
        if part.name == "fc2":
            frame = _box(left + SPINE - HALF - 11, ffn, 2 * HALF + 22, y + 7 - ffn)
            items.insert(0, Shapes(frame[None], [mix(GREY, PAPER, 0.82)], name="ffn"))
            items.append(Label(left + SPINE + HALF + 18, ffn + 16, "FFN", color=MUTED, bold=True))
    items += _arrow(left + SPINE, y, y + ARROW, _size(shape))
    y += ARROW
    if found.final:
        note = f"after {found.blocks} blocks" if found.blocks > 1 else "after the last block"
        items += [
            Label(left + SPINE, y + 14, note, anchor="middle", color=MUTED),
            *_part(found.final, left, y + 22),
        ]
        y += 22 + TALL["slot"]
    return items, y


def _tell(found: Walk) -> str:
    return ", ".join(f"{name} {part.text}" for name, part in found.slots.items())


def _path(found: Walk) -> str:
    """The way through the block in words; equal for arms that differ in their slots alone."""
    steps = [part.name if part.kind == "slot" else part.text for part in found.parts]
    return f"{_size(found.shape)} → {' → '.join(steps)}"


def vit_block(*models, block: int = 0) -> Scene:
    """One block of each model, side by side: norm slots lit in the colour of their method, empty ones dashed.

    models: one or more ViTs, see `walk`, which also says what is raised.  block: which of their blocks, from 0.
    """
    if not models:
        raise ValueError("draw_vit_block() needs a model, such as normviz.lab.ViT('bn')")
    walks = [walk(model, block) for model in models]
    across = min(3, len(walks))
    scene = Scene(NOTEBOOK_WIDTH if across > 1 else 460, 0, "")
    pitch, top = (scene.width / across if across > 1 else PANEL), 24.0
    for start in range(0, len(walks), across):
        ends = []
        for i, found in enumerate(walks[start : start + across]):
            items, end = _column(found, i * pitch, top)
            scene.items += items
            ends.append(end)
        top = max(ends) + 44
    scene.height = top - 32
    # The way is told once where it is the same
    paths = list(dict.fromkeys(map(_path, walks)))
    way = f"A pre-norm ViT block, + adding what went around the branch: {'; or '.join(paths)}."
    scene.alt = f"{way} In the slots of {'; of '.join(f'{w.name}: {_tell(w)}' for w in walks)}."
    return scene


def draw_vit_block(*models, block: int = 0):
    """`vit_block` as a matplotlib Figure with alt text: the norm slots of one or more ViTs, read off the models.

    Raises as `walk` does: TypeError for a model whose slots are not in sight, ValueError for a block that is not there.
    """
    return figure(with_caption(vit_block(*models, block=block)))
