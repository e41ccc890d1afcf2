"""What a page without a kernel holds of an explorer, put together again in Python: shared by tests."""

from dataclasses import replace

from normviz.explore import Explorer
from normviz.picture.scene import CURSOR, Scene
from normviz.picture.svg import backdrop_svg, front_svg, to_svg


def as_paged(scene: Scene) -> Scene:
    """The picture as a page has it: cells tell their numbers under the pointer, the module marks the cursor's cell."""
    by_set = any(handle.sets for handle in scene.handles)

    def kept(items: list) -> list:
        some = (item for item in items if not (by_set and getattr(item, "name", "") in CURSOR))
        return [replace(item, titles=None) if getattr(item, "data", None) else item for item in some]

    return replace(scene, items=kept(scene.items), backdrop=kept(scene.backdrop))


def markup(scene: Scene) -> str:
    """The SVG of a picture: backdrop and front, or the one."""
    return backdrop_svg(scene) + front_svg(scene) if scene.backdrop else to_svg(scene)


def drawn(data: dict, at: int) -> str:
    """The SVG that state number `at` shows, without its alt text."""
    state = data["states"][at]
    below, front = data["head"][state["head"]]

    def joined(places: list[int]) -> str:
        return "".join(piece(data, data["pieces"][i]) for i in places)

    backdrop, front_of = data["backdrops"][state["backdrop"]], [i for run in state["front"] for i in data["runs"][run]]
    return (f"{below}{joined(backdrop)}</svg>" if backdrop else "") + f"{front}{joined(front_of)}</svg>"


def line(data: dict, part: str | int) -> str:
    return part if isinstance(part, str) else data["outlines"][part]


def piece(data: dict, one: str | list) -> str:
    if isinstance(one, str):
        return one
    if len(one) == 3:
        return one[0] + "".join(line(data, k) for k in one[1]) + one[2]
    tag, paths, fills, names, labels, titles = one
    tables = (("fills", fills), ("names", names), ("labels", labels), ("titles", titles))
    fills, names, labels, titles = (data[table][at] for table, at in tables)
    faces = [
        f'<path d="{line(data, path)}" fill="{data["colors"][fills[k]]}"'
        + (f' data-cell="{names[k]}" data-set="{labels[k]}"' if names else "")
        + (f"><title>{titles[k]}</title></path>" if titles else "/>")
        for k, path in enumerate(data["paths"][paths])
    ]  # fmt: skip
    return f"{tag}{''.join(faces)}</g>"


def beside(state: Explorer) -> dict:
    """The controls that stand beside the picture, by name."""
    return {name: control for name, control in state.controls().items() if not control.hand}
