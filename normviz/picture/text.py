"""Numbers in words, and how wide a text is: the one place for both.  Plain Python and numpy.

A minus sign is the true one (−) wherever a number is written.  Words of a reader are never touched.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float, digits: int = 3) -> str:
    """A number to so many significant digits: `0.123`, `4,390`, `−4.2e−08`; a power of ten from 10⁵ on or below 10⁻⁴
    as `10⁶`."""
    if (value >= 1e5 or 0 < value < 9e-5) and f"{value:e}".startswith("1.000000e"):
        return "10" + str(round(math.log10(value))).translate(_SUPERSCRIPTS)
    text = f"{value or 0.0:.{digits}g}"
    if 1e3 <= abs(rounded := float(text)) < 1e6:  # read more easily with its zeros than as 4.39e+03
        text = f"{rounded:,.{max(digits, 6)}g}"
    return text.replace("-", "−")


def fixed(value: float, decimals: int = 2) -> str:
    """A number with so many decimals, never `−0.00`.  Beyond 10⁹, where decimals say nothing, as `number` has it."""
    if 1e9 <= abs(value) < math.inf:
        return number(value)
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def signed(value: float) -> str:
    """A number with its sign: `+0.5`, `−2`; zero has none."""
    return f"{'+' if value > 0 else ''}{number(value)}"


def percent(share: float) -> str:
    """`430 %`, `43 %`, `0.002 %`, and `—` where there is nothing to measure (NaN)."""
    if math.isnan(share) or share < 1e-12:
        return "—" if math.isnan(share) else "0 %"
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %".replace("-", "−")


def plural(count: int, noun: str) -> str:
    """`1 set`, `2 sets`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _prefixed(value: float, unit: str, prefixes: dict[str, float]) -> str:
    """A number in the first of some units that it is not below, or else in the last."""
    prefix, size = next((row for row in prefixes.items() if value >= row[1]), [*prefixes.items()][-1])
    return f"{value / size:.3g} {prefix}{unit}".strip()


def seconds(value: float) -> str:
    """A time in the unit that suits it: `1.5 s`, `12 ms`, `30 µs`, `7 ns`."""
    return _prefixed(value, "s", {"": 1.0, "m": 1e-3, "µ": 1e-6, "n": 1e-9}) if value else "0"


def amount(value: float, unit: str = "") -> str:
    """A large number with its prefix: `1.2 MB`, `30 k`."""
    return _prefixed(value, unit, {"G": 1e9, "M": 1e6, "k": 1e3, "": 1.0})


def vector(values: Iterable[float]) -> str:
    """`(1.00, −0.50)`."""
    return f"({', '.join(map(fixed, values))})"


def interval(low: float, high: float) -> str:
    """`0.50 to 1.20`."""
    return f"{fixed(low)} to {fixed(high)}"


# Widths ----------------------------------------------------------------------------------------------------

# Advance widths of DejaVu Sans in hundredths of an em, read with fontTools from the font that matplotlib brings: a byte
# a character, as hexadecimal digits.  Accented letters are as wide as their bare ones.
_CHARACTERS = "".join(map(chr, range(32, 127))) + (
    "«»·°±×÷¬§µ¹²³½¼ßΓΔΘΛΞΠΣΦΨΩαβγδεζηθικλμνξοπρςστυφχψωϵ‐–—‘’“”†•…′″−√∞≈≠≤≥≪≫∂∇∏∑∈∙∫∝∥⊙→←↑↓↔↦⇒⇔▲▼●■◆★○□◇"
    "☆✓✗⁰⁴⁵⁶⁷⁸⁹⁻⁺₀₁₂₃₄₅₆₇₈₉┆│ℝ"
)
_PLAIN = bytes.fromhex(
    "20282E54405F4E1B272732542024202240404040404040404040222254545435644445464D3F3A4D4B1D1D4238564B4F3C4F453F3D494463"
    "453D452722275432323D3F373F3E233F3F1C1C3A1C613F3D3F3F2934273F3B523B3B34402240543D3D203254545454324028282861613F38"
    "444F443F4B3F4F4F4C42403B3D36363F3D223B3B4038383D3C3F3B3F3C3A423A42543E24326420203434323B641725544053545454546969"
    "34434C43573F3447325454545454545454544D4D575E4D5A575E4D5A5454282828282828283535282828282828282828283C3C4F"
)
_BOLD = bytes.fromhex(
    "232E34544664571F2E2E3454262A26254646464646464646464628285454543A644D4C49534444525425254D4064545549554D4844514D6E"
    "4D48492E252E54323243483B48442C4847222243226847454848313C3047415C41413A472547544141263254545454324A2C2C2C68684840"
    "4D554D3F544455555545484445383B474527473F4A443B454F483B4E40444E414F57402A3264262642423240641A2D544353545454546969"
    "36464F485A263D47325454545454545454544D4D575E4D5A575E4D5A54542C2C2C2C2C2C2C35352C2C2C2C2C2C2C2C2C2C3C3C50"
)


_EM = [{c: width / 100 for c, width in zip(_CHARACTERS, widths, strict=True)} for widths in (_PLAIN, _BOLD)]


@lru_cache(maxsize=4096)
def text_width(text: str, size: float = 12, bold: bool = False) -> float:
    """How wide a line of text in DejaVu Sans is, in pixels; an unknown character counts as a wide one.

    It is the wider of what a browser makes of it and matplotlib, which rounds every character to whole pixels.
    """
    table = _EM[bool(bold)]
    widths = [size * (table.get(c) or table.get(unicodedata.normalize("NFD", c)[0], 0.9)) for c in text]
    return max(sum(widths), sum(map(round, widths)))
