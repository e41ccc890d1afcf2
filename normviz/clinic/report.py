"""What `nv.inspect` found: to print, to show in a notebook, to save as a page, to ask for one layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from textwrap import fill

from normviz.clinic.findings import SEVERITIES, Finding
from normviz.clinic.layers import Layer
from normviz.fields import unknown
from normviz.picture.text import plural

_COLUMNS = ("layer", "class", "input", "shares", "company", "σ, batch / running", "outlier / bound", "folds into")
_STYLE = """.nv{font:14px/1.45 sans-serif;color:#1A1A1A;background:#FFF} .nv table{border-collapse:collapse}
.nv td,.nv th{border-bottom:1px solid #C8C8C8;padding:4px 10px;text-align:left;vertical-align:top}
.nv .fault{color:#A32F00;font-weight:bold} .nv .warning{color:#7A4B00;font-weight:bold}
.nv div{overflow-x:auto}"""


@dataclass
class Report:
    """The norm layers of a model and what was found at them.

    Iterating gives the layers in the order in which they run, `report["blocks.3.norm2"]` one of them, with `.draw()`.
    findings: worst first.  model: its class.
    """

    model: str
    layers: dict[str, Layer]
    findings: list[Finding] = field(default_factory=list)
    samples: int | None = None

    def __post_init__(self):
        order = {name: i for i, name in enumerate(self.layers)}
        self.findings.sort(key=lambda f: (SEVERITIES.index(f.severity), order.get(f.layer, -1)))

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers.values())

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, name: str) -> Layer:
        if name not in self.layers:
            raise KeyError(unknown("layer", name, self.layers))
        return self.layers[name]

    def of(self, severity: str) -> list[Finding]:
        """The findings of one severity: "fault", "warning" or "note".  Raises ValueError for any other."""
        if severity not in SEVERITIES:
            raise ValueError(unknown("severity", severity, SEVERITIES))
        return [finding for finding in self.findings if finding.severity == severity]

    @property
    def faults(self) -> list[Finding]:
        return self.of("fault")

    def groups(self) -> list[tuple[str, str, str, str]]:
        """Findings of one kind and advice, once each: severity, layers, text (the first of several), advice."""
        groups: dict[tuple, list[Finding]] = {}
        for found in self.findings:
            groups.setdefault((found.severity, found.kind, found.advice), []).append(found)
        return [
            (severity, _where([f.layer for f in group]), _first([f.text for f in group]), advice)
            for (severity, _, advice), group in groups.items()
        ]

    @property
    def summary(self) -> str:
        """One sentence: how many layers there are, what they share, how much was found."""
        cuts = Counter(layer.cut for layer in self)
        parts = ", ".join(f"{count} × {name}" for name, count in cuts.most_common()) or "none"
        counts = ", ".join(plural(len(self.of(severity)), severity) for severity in SEVERITIES)
        return f"{self.model}: {plural(len(self), 'norm layer')} ({parts}); {counts}"

    def __str__(self) -> str:
        lines = [fill(self.summary, 110)]
        for severity, where, text, advice in self.groups():
            lines.append(fill(f"{severity.upper():8}{where}: {text}.", 110, subsequent_indent=" " * 8))
            lines.append(fill(f"→ {advice}.", 110, initial_indent=" " * 8, subsequent_indent=" " * 10))
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = table_row(("severity", "layer", "what was found", "what to do"), "th")
        found = "".join(table_row(cells).replace("<td>", f'<td class="{cells[0]}">', 1) for cells in self.groups())
        layers = table_row(_COLUMNS, "th") + "".join(table_row(_cells(layer)) for layer in self)
        return (
            f'<div class="nv"><style>{_STYLE}</style><p>{escape(self.summary)}</p>'
            f"<div><table>{head}{found}</table></div><details><summary>All norm layers</summary>"
            f"<div><table>{layers}</table></div></details></div>"
        )

    def to_html(self) -> str:
        """The report as a whole HTML document that needs nothing beside itself."""
        title = f"Norm layers of {escape(self.model)}"
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f'<meta name="viewport" content="width=device-width"></head><body class="nv"><h1>{title}</h1>'
            f"{self._repr_html_()}</body></html>"
        )


def _where(names: list[str]) -> str:
    shown = ", ".join(name or "the model" for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _first(texts: list[str]) -> str:
    return texts[0] + " (the first of them)" * (len(set(texts)) > 1)


def table_row(cells: Iterable[str], tag: str = "td") -> str:
    """A row of an HTML table."""
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _cells(layer: Layer) -> tuple[str, ...]:
    """What `_COLUMNS` says of a layer."""
    company = (("no", "in evaluation"), ("in training", "always"))
    return (
        layer.name, layer.kind, "×".join(map(str, layer.shape)), layer.cut,
        company[layer.company(training=True)][layer.company(training=False)],
        f"{layer.gap[1]:.2g}" if layer.gap else "",
        f"{layer.outlier:.3g} / {layer.bound:.3g}" if layer.outlier else "",
        ", ".join(layer.folds_into) or layer.why_not,
    )  # fmt: skip
