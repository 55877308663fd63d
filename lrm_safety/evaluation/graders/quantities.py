r"""Words around a value: numbers in words, scales, units, and words that bound or deny what stands beside them."""

from __future__ import annotations

import re
from fractions import Fraction

_ONE_NAMES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen"""
_TEN_NAMES = """twenty thirty forty fifty sixty seventy eighty ninety"""
_ONES = {word: number for number, word in enumerate(_ONE_NAMES.split())}
_TENS = {word: 10 * number for number, word in enumerate(_TEN_NAMES.split(), start=2)}
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
"""Powers of ten."""
_SHARES = {
    "half": 2,
    "halve": 2,
    "third": 3,
    "quarter": 4,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "seventh": 7,
    "eighth": 8,
}
_SHARES |= {"ninth": 9, "tenth": 10, "eleventh": 11, "twelfth": 12, "hundredth": 100, "thousandth": 1000}
_SCALE_AFTER_VALUE = re.compile(
    rf"(?<=[\d)}}])\s*(?:\\[ ,;:!]|~|\s)*(\\(?:text|mathrm|mbox)[a-z]*\s*\{{\s*)?({'|'.join(_SCALES)}|dozen)s?(?![A-Za-z])"
)
_DENYING = re.compile(
    r"\b(?:not|cannot|wrong|incorrect|false|never|neither|nor|impossible|invalid|except|excluding|unless|unlikely|besides"
    r"|(?:anything|all|everything) but|(?:other|rather) than|apart from|instead of|between)\b|n['’]t\b"
)
_LOWER = re.compile(
    r"\b(?:at least|more than|greater than|larger than|bigger than|no less than|no fewer than|not less than|exceed(?:s|ing)?"
    r"|(?:or|and) (?:more|greater|above|larger|higher))\b|^\W*(?:over|above)\b"
)
_UPPER = re.compile(
    r"\b(?:at most|less than|fewer than|smaller than|no more than|no greater than|not more than|up to"
    r"|(?:or|and) (?:less|fewer|below|smaller|lower))\b|^\W*(?:under|below)\b"
)
_UNITS: dict[str, tuple[str, Fraction]] = {
    name: (kind, Fraction(size))
    for kind, names in {
        "length": {
            "mm|millimeter|millimetre": "1/1000",
            "cm|centimeter|centimetre": "1/100",
            "m|meter|metre": "1",
            "km|kilometer|kilometre": "1000",
            "in|inch|inche": "0.0254",
            "ft|foot|feet": "0.3048",
            "yd|yard": "0.9144",
            "mi|mile": "1609.344",
        },
        "time": {
            "s|sec|second": "1",
            "min|minute": "60",
            "h|hr|hour": "3600",
            "day": "86400",
            "week": "604800",
            "month": "2629746",
            "year": "31556952",
        },
        "mass": {"mg|milligram": "1/1000000", "g|gram": "1/1000", "kg|kilogram": "1"},
        "weight": {"oz|ounce": "1/16", "lb|pound": "1"},
        "money": {"cent": "1/100", "dollar": "1"},
        "euro": {"euro": "1"},
        "fluid": {"ml|milliliter|millilitre": "1/1000", "l|liter|litre": "1"},
        "degrees": {"degree": "1"},
        "radians": {"radian|rad": "1"},
    }.items()
    for several, size in names.items()
    for name in several.split("|")
}
_UNIT = re.compile(
    r"(?:\\(?:text|mathrm|mbox|textrm|operatorname)\s*\{\s*)?(?<![A-Za-z\\])(square|sq\.?|cubic|cu\.?)?\s*([A-Za-z]+)\.?\s*\}?"
    r"\s*(?:\^\s*\{?\s*([23])\s*\}?)?[\s.$]*$"
)
# "m/s", "miles per hour", "mph": in words, or after a number.
_RATE = re.compile(
    r"(?:\\(?:text|mathrm|mbox|textrm|operatorname)\s*\{\s*|(?<=[\d}~ ]))(?:(mph|kph|kmh)|([A-Za-z]+)\s*(?:/|\bper\b|\ban?\b)\s*"
    r"([A-Za-z]+))\.?\s*\}?[\s.$]*$"
)


def _rate_names(rate: re.Match[str]) -> tuple[str, str]:
    if rate[1]:
        return ("mi" if rate[1] == "mph" else "km"), "h"
    return rate[2].lower(), rate[3].lower()


def scaled(latex: str) -> str:
    r"""`2.5 \text{ million}` as `2.5\times10^{6}`, `3 \text{ dozen}` as `3\times12`; the words after it stay."""

    def power(match: re.Match[str]) -> str:
        return (rf"\times10^{{{_SCALES[match[2]]}}}" if match[2] in _SCALES else r"\times12") + (match[1] or "")

    while (found := _SCALE_AFTER_VALUE.sub(power, latex, count=1)) != latex:
        latex = found
    return re.sub(r"\\(?:text|mathrm|mbox)[a-z]*\s*\{\s*\}", "", latex)


def qualifiers(latex: str) -> frozenset[str]:
    """Which of `denied`, `lower` and `upper` the words of an answer say about its value."""
    spoken = " ".join(re.sub(r"\\[A-Za-z]+|\\.|[{}$~]", " ", latex).lower().split())
    if not re.search(r"[a-z]{2}", spoken):
        return frozenset()
    found = {name for name, words in (("lower", _LOWER), ("upper", _UPPER)) if words.search(spoken)}
    rest = _UPPER.sub(" ", _LOWER.sub(" ", spoken))
    return frozenset(found | ({"denied"} if _DENYING.search(rest) else set()))


def unit_of(latex: str) -> tuple[str, Fraction] | None:
    """(kind of quantity with its power, size in the kind's unit) that an answer ends in; None without a known unit."""
    if re.search(r"(?:\^\s*\{?\s*\\circ\s*\}?|\\degree|°)[\s.$]*$", latex):
        return "degrees^1", Fraction(1)
    if re.match(r"\s*(?:\\?\$)\s*[\d.]", latex) and not latex.rstrip().endswith("$"):
        return "money^1", Fraction(1)
    if (rate := _RATE.search(latex)) is not None:
        sides = [_UNITS.get(name) or _UNITS.get(name.removesuffix("s")) for name in _rate_names(rate)]
        if sides[0] is not None and sides[1] is not None:
            return f"{sides[0][0]}/{sides[1][0]}", sides[0][1] / sides[1][1]
    match = _UNIT.search(latex)
    if match is None:
        return None
    name = match[2].lower()
    # A single letter is a unit only inside words: `4m` is a product.
    if len(name) == 1 and not re.search(r"\\(?:text|mathrm|mbox)[a-z]*\s*\{\s*" + match[2], match[0]):
        return None
    found = _UNITS.get(name) or (_UNITS.get(name[:-1]) if name.endswith("s") and len(name) > 2 else None)
    if found is None:
        return None
    power = int(match[3] or {"s": 2, "c": 3}.get((match[1] or " ")[0], 1))
    return f"{found[0]}^{power}", found[1] ** power


def number_in_words(text: str) -> Fraction | None:
    """The number that words say: `twenty-five`, `minus two thirds`, `two and a half`, `3 out of 5`, `half a million`."""
    spoken = re.sub(r"\\[A-Za-z]+|[{}$~.]|\\.", " ", text).lower().replace("-", " ").replace(",", " ")
    spoken = re.sub(r"\s+per ?cent\s*$", "", spoken)
    share = re.fullmatch(r"\s*(\w+)\s+(?:out of|in every|in|of)\s+(\w+)\s*", spoken)
    if share:
        top, bottom = (_small(part) for part in share.groups())
        return top / bottom if top is not None and bottom else None
    parts = spoken.split()
    sign = -1 if parts[:1] in (["minus"], ["negative"]) else 1
    parts = parts[sign < 0 :]
    if not parts or parts in (["a"], ["an"]) or len(parts) > 12 or not all(part.isalpha() for part in parts):
        return None
    value = _said(parts)
    return None if value is None else sign * value


def _small(word: str) -> Fraction | None:
    return Fraction(int(word)) if word.isdecimal() and word.isascii() else _said([word])


def _said(parts: list[str]) -> Fraction | None:
    if "and" in parts:
        place = parts.index("and")
        if parts[place + 1 :] and (share := _share(parts[place + 1 :])) is not None:
            whole = _said(parts[:place])
            return None if whole is None else whole + share
    share = _share(parts)
    return share if share is not None else _whole(parts)


def _share(parts: list[str]) -> Fraction | None:
    """`half`, `a third`, `two thirds`, `half a million`."""
    singular = [part.removesuffix("s") for part in parts]
    place = next((i for i, part in enumerate(singular) if part in _SHARES), None)
    if place is None or (parts[place] in ("seconds", "second")):
        return None
    top = Fraction(1) if parts[:place] in ([], ["a"], ["an"], ["one"]) else _whole(parts[:place])
    rest = [part for part in parts[place + 1 :] if part not in ("a", "an", "of")]
    times = _whole(["one", *rest]) if rest else Fraction(1)
    return None if top is None or times is None else top * times / _SHARES[singular[place]]


def _whole(parts: list[str]) -> Fraction | None:
    total, current, seen = 0, 0, False
    for part in parts:
        if part in ("a", "an") and not seen:
            current, seen = 1, True
        elif part in _ONES or part in _TENS:
            step = _ONES.get(part, _TENS.get(part, 0))
            if seen and current % 100 and not (current % 100 >= 20 and current % 10 == 0 and 0 < step < 10):
                return None
            current, seen = current + step, True
        elif part == "dozen":
            current, seen = 12 * max(current, 1), True
        elif part in _SCALES and seen:
            size = 10 ** _SCALES[part]
            if size == 100:
                current *= size
            else:
                total, current = total + current * size, 0
        elif part != "and" or not seen:
            return None
    return Fraction(total + current) if seen else None
