"""The ViT block as a diagram that is read off the model: what sits in the norm slots, and the shape on every arrow.

A copy of the block is run once on random tokens, with hooks on its parts.  The diagram shows these parts in the order
in which they ran, and is refused where the sums do not come out as it would say.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from normviz.arms import BLUE, GREY
from normviz.draw.common import NOTEBOOK_WIDTH, as_array
from normviz.norms import METHODS, ROLES, Method
from normviz.picture.chart import MARKERS
from normviz.picture.color import INK, MUTED, PAPER, grey_pixels, mix, readable_on, value_limit, value_pixels
from normviz.picture.scene import Box, Label, Raster, Scene, Shapes, Strokes, grid_rects, open_path, rect, rects, ring
from normviz.picture.text import percent, plural

FFN_TEXT = {"gelu": "GELU", "swiglu": "SiLU(gate) × value"}
ORDER = ("norm1", "attention", "norm2", "fc1", "ffn_norm_before", "ffn_norm", "fc2")  # in which the parts run
LINEAR, MIXING = "#E6E6E6", "#D9D9D9"  # what has no norm stays grey, so that the slots are what one sees


class Part(NamedTuple):
    """One box: `kind` is slot, attention, linear, act or sum; `shape` is that of what comes out, without B."""

    name: str
    kind: str
    text: str
    shape: tuple[int, ...]
    color: str = LINEAR
    method: str = ""  # short name of what is in a slot; "nothing" if it is empty

    @property
    def empty(self) -> bool:
        return self.method == "nothing"


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
        parts = (*(part for part in self.parts if part.kind == "slot"), self.final, self.embed)
        return {part.name: part for part in parts if part}

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
        return Part(name, "slot", text, shape, GREY, text)
    inner = [m for m in module.modules() if not list(m.children())]
    norm = next((m for m in inner if row_of(m)), inner[0])
    row, kind = row_of(norm), type(norm).__name__
    if kind == "Identity":
        return Part(name, "slot", "empty", shape, PAPER, "nothing")
    rest = {type(m).__name__.lower(): getattr(m, "limit", math.nan) for m in inner if m is not norm}
    extra = "".join(f" + {name}" + (f" {limit:g}" if limit == limit else "") for name, limit in rest.items())
    if row is None:
        return Part(name, "slot", kind + extra, shape, GREY, kind + extra)
    over = ", ".join(letter for letter in "BTD" if ROLES[letter] in row.over)
    return Part(name, "slot", f"{row.short} over {over}{extra}", shape, row.color, row.short + extra)


def row_of(module) -> Method | None:
    """The row of `METHODS` that a torch module belongs to."""
    kind, size = type(module).__name__, getattr(module, "normalized_shape", None)
    per_token = size is not None and len(size) == 1  # one class serves both kinds of LayerNorm
    rows = [row for row in METHODS.values() if re.fullmatch(row.torch_class.replace("{d}", "[123]"), kind)]
    return next((row for row in rows if len(rows) == 1 or (row.feature_axis == "last") == per_token), None)


def walk(model, block: int = 0) -> Walk:
    """Run a copy of one block of the model on random tokens, and say what ran, in which order, on which shapes.

    model: `.blocks`, each with `.slots` (norm1, norm2, ffn_norm), `.attention` (with `.heads`) and `.ffn` (with
    `.kind`, `.fc1`, `.norm`, `.fc2`), and `.embedding.tokens`; `.final`, if it is there, is shown too.

    Raises TypeError if the model lacks one of these or `block` is no integer, ValueError for a block that it has not,
    or one that is not x + attention(norm1(x)), then x + ffn(norm2(x)).
    """
    try:
        layers, tokens = list(model.blocks), int(model.embedding.tokens)
        slots = [dict(b.slots) for b in layers]
        _ = [[each[name] for name in ("norm1", "norm2", "ffn_norm")] for each in slots]
        _ = [(b.attention.heads, b.ffn.kind, b.ffn.fc1, b.ffn.fc2) for b in layers]
        width = int(layers[0].ffn.fc1.in_features)
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise TypeError(
            f"model={type(model).__name__} has no norm slots in sight ({error}); it takes a model whose blocks "
            "have slots norm1, norm2 and ffn_norm, such as normviz.lab.ViT"
        ) from None
    if not isinstance(block, (int, np.integer)):
        raise TypeError(f"block={block!r} must be an integer")
    if not 0 <= block < len(layers):
        raise ValueError(f"block={block!r} is not there; the model takes 0 to {len(layers) - 1}")
    here = layers[block]
    parts, shape = [], (tokens, width)
    for name, output in _run(here, tokens, width).items():
        after = tuple(output.shape[1:])
        if name == "ffn_norm":  # the nonlinearity is a function, and seen by what it hands on
            parts.append(Part("act", "act", FFN_TEXT.get(here.ffn.kind, here.ffn.kind), after, MIXING))
        if name in slots[block]:
            parts.append(slot_part(name, slots[block][name], after))
        elif name == "attention":
            parts.append(Part(name, "attention", f"attention, {int(here.attention.heads)} heads", after, MIXING))
        else:
            layer = getattr(here.ffn, name)
            parts.append(Part(name, "linear", f"{name}: {layer.in_features} → {layer.out_features}", after))
        if name in ("attention", "fc2"):
            parts.append(Part("+", "sum", "+", after, PAPER))
    final = slot_part("final", model.final, shape) if hasattr(model, "final") else None
    embed = slot_part("embed_norm", model.embed_norm, shape) if hasattr(model, "embed_norm") else None
    texts = [[slot_part(name, m, shape).text for name, m in each.items()] for each in slots]
    alike = len(layers) if all(row == texts[block] for row in texts) else 1
    return Walk(tuple(parts), shape, block, alike, final, None if embed is None or embed.empty else embed)


def _run(block, tokens: int, width: int) -> dict:
    """Outputs (2, T, …) by name in the order of running; the block itself stays as it is.

    What runs is a copy with random weights: what is drawn does not depend on them, and those of a run that diverged
    are not finite.
    """
    import torch

    block, generator = copy.deepcopy(block).eval(), torch.Generator().manual_seed(0)
    for module in block.modules():  # hooks are copied along, and this run is not for others to see
        module._forward_hooks.clear(), module._forward_pre_hooks.clear()
    like = next((p for p in block.parameters()), torch.zeros(1))
    x = torch.randn(2, tokens, width, generator=generator).to(like)
    modules = {**block.slots, "attention": block.attention, "fc1": block.ffn.fc1, "fc2": block.ffn.fc2}
    order = [name for name in ORDER if name in modules]
    seen, given = {}, {}

    def note(name, module, inputs, output):
        given[name], seen[name] = inputs[0], output

    for name in order:
        modules[name].register_forward_hook(partial(note, name))
    with torch.no_grad():
        for weights in (*block.parameters(), *block.buffers()):
            if weights.is_floating_point():
                weights.copy_(0.05 + 0.1 * torch.rand(weights.shape, generator=generator))
        out = block(x)
    # In the order it is drawn in, with the sums where they are drawn: a picture that only looks right is wrong
    feeds = [("norm1", "attention"), ("norm2", "fc1"), ("ffn_norm", "fc2"), ("fc1", "ffn_norm_before")]
    right = list(seen) == order and torch.equal(x, given["norm1"])
    right = right and all(torch.equal(seen[a], given[b]) for a, b in feeds if b in order)
    if not right or not all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-4)
        for a, b in ((given["norm2"], x + seen["attention"]), (out, given["norm2"] + seen["fc2"]))
    ):
        raise ValueError(
            f"the block ran {', '.join(seen)}, but not as x + attention(norm1(x)), then x + ffn(norm2(x)): "
            "no diagram is drawn of it"
        )
    return seen


# Drawing ---------------------------------------------------------------------------------------------------

PANEL, SPINE, HALF, SKIP = 312.0, 152.0, 84.0, 40.0  # px: a column, its main line, half a box, the skip line
TALL = {"slot": 32.0, "attention": 30.0, "linear": 30.0, "act": 30.0, "sum": 20.0}
ARROW = 27.0


def _size(shape: Iterable[int]) -> str:
    return f"(B, {', '.join(map(str, shape))})"


def _arrow(path: Sequence, tip: tuple[float, float], name: str = "") -> list:
    """A line, and a head that points the way of its last part, down or to the right."""
    along = np.sign(np.subtract(tip, path[-1]))
    head = np.vstack([tip, tip - 7 * along + np.outer((-4, 4), along[::-1])])
    return [Strokes(open_path(path), INK, 1.3, name=name), Shapes(head[None], [INK], name="arrow")]


def _down(x: float, y: float, end: float, shape: Iterable[int]) -> list:
    """An arrow of the main line, with the shape of what it carries."""
    return [*_arrow([(x, y), (x, end - 5)], (x, end)), Label(x + 9, (y + end) / 2 + 4, _size(shape), color=MUTED)]


def _part(part: Part, left: float, y: float) -> list:
    """A box, a slot or a sum, its top at y."""
    x, tall = left + SPINE, TALL[part.kind]
    middle = y + tall / 2
    if part.kind == "sum":
        circle = Shapes((x, middle) + 10 * MARKERS["circle"][None], [PAPER], ["sum"], stroke=INK, width=1.3, name="sum")
        return [circle, Label(x, middle + 5, "+", 15, "middle", bold=True)]
    corners, slot = rect(Box(x - HALF, y, 2 * HALF, tall)), part.kind == "slot"
    box = Shapes(corners[None], [part.color], [f"{part.name}: {part.text}"], name=f"part-{part.name}")
    items: list = [box]
    if part.empty:
        items.append(Strokes(ring(corners), MUTED, 1.3, dashed=True, name="empty"))
    else:
        box.stroke, box.width = INK, 2.0 if slot else 0.8
    ink = MUTED if part.empty else readable_on(part.color)
    items.append(Label(x, middle + 4.5, part.text, 13 if slot else 12, "middle", ink, bold=slot and not part.empty))
    if slot:
        items.append(Label(x + HALF + 7, middle + 4.5, part.name, bold=True))
    return items


def _column(walked: Walk, left: float, top: float) -> tuple[list, float]:
    """One block from top to bottom, and where it ends."""
    many = f"{plural(walked.blocks, 'block')} like this one" if walked.blocks > 1 else f"block {walked.block}"
    items: list = [Label(left + 12, top, walked.name, 15, bold=True), Label(left + 12, top + 18, many, color=MUTED)]
    spine, y, shape, begin, ffn = left + SPINE, top + 30, walked.shape, None, 0.0
    for part in walked.parts:
        end = y + ARROW
        items += _down(spine, y, end, shape)
        begin = y + 5.0 if begin is None else begin
        items += _part(part, left, end)
        if part.kind == "sum":
            x, middle = left + SKIP, end + TALL["sum"] / 2  # the line around the branch
            way = [(spine, begin), (x, begin), (x, middle), (spine - 17, middle)]
            items, begin = [*items, *_arrow(way, (spine - 10, middle), "skip")], None
        y, shape = end + TALL[part.kind], part.shape
        if part.name == "fc1":
            ffn = end - 7
        if part.name == "fc2":
            frame = rect(Box(spine - HALF - 11, ffn, 2 * HALF + 22, y + 7 - ffn))
            items.insert(0, Shapes(frame[None], [mix(GREY, PAPER, 0.82)], name="ffn"))
            items.append(Label(spine + HALF + 18, ffn + 16, "FFN", color=MUTED, bold=True))
    items += _down(spine, y, y := y + ARROW, shape)
    if walked.final:
        note = f"after {walked.blocks} blocks" if walked.blocks > 1 else "after the last block"
        items += [Label(spine, y + 14, note, anchor="middle", color=MUTED), *_part(walked.final, left, y + 22)]
        y += 22 + TALL["slot"]
    return items, y


def vit_block_scene(*models, block: int = 0) -> Scene:
    """One block of each model, side by side: norm slots lit in the colour of their method, empty ones dashed.

    models: one or more ViTs, see `walk`, which also says what is raised.  block: which of their blocks, from 0.
    """
    if not models:
        raise ValueError("vit_block() needs a model, such as normviz.lab.ViT('bn')")
    walks = [walk(model, block) for model in models]
    across = min(3, len(walks))
    scene = Scene(NOTEBOOK_WIDTH if across > 1 else 460, 0)
    pitch, top = (scene.width / across if across > 1 else PANEL), 24.0
    for start in range(0, len(walks), across):
        columns = [_column(walked, i * pitch, top) for i, walked in enumerate(walks[start : start + across])]
        scene.items += [item for items, _ in columns for item in items]
        top = max(end for _, end in columns) + 44
    scene.height = top - 32
    names = [[part.name if part.kind == "slot" else part.text for part in walked.parts] for walked in walks]
    ways = [" → ".join([_size(walked.shape), *steps]) for walked, steps in zip(walks, names, strict=True)]
    ways = "; or ".join(dict.fromkeys(ways))  # said once where it is the same
    slots = [f"{w.name}: {', '.join(f'{name} {part.text}' for name, part in w.slots.items())}" for w in walks]
    scene.alt = (
        f"A pre-norm ViT block, + adding what went around the branch: {ways}. In the slots of {'; of '.join(slots)}."
    )
    return scene


def vit_path_scene(image, tokens, after, chances, *, patch: int = 2, blocks: str = "blocks") -> Scene:
    """One image on its way through a ViT: patches, their tokens, the tokens after the blocks, the classes.

    image: (H, W).  tokens, after: (T, D), a row a patch in reading order.  chances: (classes,), summing to 1.
    blocks: what stands between the two, such as "4 blocks".  Raises ValueError where there is not a token a patch.
    """
    given = {"image": image, "tokens": tokens, "after": after, "chances": chances}
    image, tokens, after, chances = (as_array(x, name) for name, x in given.items())
    down, across = (side // patch for side in image.shape)
    if tokens.shape != after.shape or len(tokens) != down * across:
        shapes = f"{tokens.shape} and {after.shape}"
        raise ValueError(f"tokens and after have shapes {shapes}; they take (T, D) with T = {down * across} patches")
    scene, best, shades = Scene(NOTEBOOK_WIDTH, 244), int(chances.argmax()), grey_pixels(image)
    whole, pitch = grid_rects(Box(12, 48, 132, 132), down, across), 152 / across
    scene.items += [Raster(12, 48, 132, 132, shades), Strokes(ring(whole), GREY)]
    for k in range(len(tokens)):
        i, j = divmod(k, across)
        box = Box(183 + pitch * j, 51 + pitch * i, pitch - 6, pitch - 6)
        cut = shades[patch * i : patch * (i + 1), patch * j : patch * (j + 1)]
        scene.items += [Raster(*vars(box).values(), cut, f"patch {k}"), Strokes(ring(rect(box)), GREY)]
    for x, values in ((372, tokens), (664, after)):
        scene.items.append(Raster(x, 48, 160, 160, value_pixels(values, value_limit(values))))
    scene.items.append(Shapes(rects(570, 93, 626, 163), [LINEAR], stroke=INK, width=1.0, name="blocks"))
    scene.items += [Label(598, 126 + 15 * k, word, anchor="middle") for k, word in enumerate(blocks.split())]
    for k, chance in enumerate(chances):
        y, high = 48 + 160 / len(chances) * k, 160 / len(chances)
        bar = rects(878, y + 2, 878 + 56 * chance, y + high - 2)
        scene.items.append(Shapes(bar, [BLUE], [f"class {k}: {percent(chance)}"], name="chance"))
        scene.items.append(Label(872, y + high / 2 + 4, str(k), anchor="end", bold=k == best))
    for x, end in ((148, 176), (336, 366), (536, 566), (630, 660), (830, 858)):
        scene.items += _arrow([(x, 128), (end - 5, 128)], (end, 128))
    size, pieces = "{} × {} features".format(*tokens.shape), f"{len(tokens)} of {patch} × {patch}"
    for x, name, words in (
        (78, "image", "{} × {} pixels".format(*image.shape)), (256, "patches", pieces), (452, "tokens", size),
        (744, "tokens", size), (898, "class", f"{best}: {percent(chances[best])}"),
    ):  # fmt: skip
        scene.items += [Label(x, 30, name, 13, "middle", bold=True), Label(x, 232, words, 12, "middle", MUTED)]
    scene.alt = (
        f"An image of {image.shape[0]} × {image.shape[1]} pixels is cut into {len(tokens)} patches. Each becomes a "
        f"token of {tokens.shape[1]} features, a row of the map. After {blocks} the mean of all tokens says class "
        f"{best}, with {percent(chances[best])}."
    )
    return scene
