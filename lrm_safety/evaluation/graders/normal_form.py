r"""Bring a LaTeX answer to one spelling by MATH's conventions, and read plain numbers exactly.

MATH's answers leave out what the question fixes: units, degree, currency and percent signs, `\left`, spacing. The
conventions are those of the grader published with MATH (Hendrycks et al. 2021, arXiv 2103.03874), widened to the
spellings that models use.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from functools import lru_cache

from .grade import brace_pairs
from .quantities import number_in_words, scaled

_CHARACTERS = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "‐": "-",
        "‑": "-",
        "÷": "/",
        "∕": "/",
        "⁄": "/",
        "⋅": r"\cdot ",
        "∙": r"\cdot ",
        "∗": "*",
        "≈": r"\approx ",
        "∩": r"\cap ",
        "∖": r"\setminus ",
        "∨": r"\lor ",
        "∧": r"\land ",
        "ℝ": r"\mathbb{R}",
        "ℤ": r"\mathbb{Z}",
        "ℕ": r"\mathbb{N}",
        "ℚ": r"\mathbb{Q}",
        "ℂ": r"\mathbb{C}",
        "∛": r"\sqrt[3] ",
        "′": "'",
        "’": "'",
        "″": "''",
        "\u200b": "",
        "\ufeff": "",
        "π": r"\pi ",
        "∞": r"\infty ",
        "×": r"\times ",
        "·": r"\cdot ",
        "°": r"^\circ ",
        "≤": r"\le ",
        "≥": r"\ge ",
        "≠": r"\ne ",
        "∪": r"\cup ",
        "∈": r"\in ",
        "±": r"\pm ",
        "√": r"\sqrt ",
        "∅": r"\emptyset ",
        "\u00a0": " ",
        "\u202f": r"\,",
    }
)
_GREEK_NAMES = """alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi omega
Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega"""
_GREEK_LETTERS = "αβγδεζηθικλμνξρστυφχψωΓΔΘΛΞΠΣΦΨΩ"
_GREEK = str.maketrans({c: f"\\{name} " for c, name in zip(_GREEK_LETTERS, _GREEK_NAMES.split(), strict=True)})
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱˣ]+")
_LOWERED = re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋ₙᵢ]+")
_VULGAR = re.compile("[¼-¾⅐-⅞↉]")
# What only dresses a value. Applied before anything else looks at it.
_MARKUP: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"</?(?:b|i|u|em|strong|span|p|br|font|mark|center|div)\b[^<>]{0,200}>", " "),
        (r"^\s*(\*\*|__|\*|_|`{1,3})(?=\S)(.*\S)\1\s*$", r"\2"),
        (r"(?<=[\w)}])\*\*(?=[\w({-])", "^"),
        (r"\\(?:textcolor|colorbox|fcolorbox\s*\{[^{}]*\})\s*(?:\[[^\]]*\])?\s*\{[^{}]*\}", ""),
        (r"\\color\s*(?:\[[^\]]*\])?\s*\{[^{}]*\}", ""),
        (r"\\(?:hspace|vspace|[hv]?phantom|label|tag|kern|hskip|style|class|cssId)\*?\s*\{[^{}]*\}", " "),
        (
            r"\\(?:bf|it|rm|sf|tt|sc|em|bfseries|itshape|scshape|normalfont|tiny|scriptsize|footnotesize|small|normalsize"
            r"|[lL]arge|LARGE|[hH]uge|boldmath|scriptstyle|scriptscriptstyle|m?strut|mathstrut|nobreak|allowbreak|noindent"
            r"|newline|linebreak|smallskip|medskip|bigskip|centering)(?![A-Za-z])",
            " ",
        ),
        (
            r"\\(?:math(?:bf|it|sf|tt|ord|normal)|bold(?:symbol)?|bm|pmb|underline|uline|emph|ensuremath|hbox"
            r"|text(?:bf|it|sf|tt|normal))\s*\{(?=[^{}]*[\d\\])(?![^{}]*(?<![\\A-Za-z])[A-Za-z]{4})",
            "{",
        ),
        (r"\\text\w*\s*\{\s*(\{[^{}]*\})\s*\}", r"\1"),
        (r"(?:\\(?:blacksquare|square|Box|checkmark|qed|qedsymbol)(?![A-Za-z])|[■□∎✓✔✅])\s*$", ""),
        (r"^(?:\s|\\\\|\\[,;:!])+|(?:\s|(?<!\\)\\\\|(?<!\\)\\[,;:!])+$", ""),
    )
)
_UNIT_WORDS = (
    r"(?:square|sq\.?|cubic|cu\.?)?\s*(?:units?|degrees?|percent|dollars?|cents?|inch(?:es)?|feet|foot|ft|yards?|miles?|mph"
    r"|cm|mm|km|kg|ml|lbs?|hrs?|mins?|secs?|lit(?:er|re)s?|met(?:er|re)s?|centimet(?:er|re)s?|kilomet(?:er|re)s?|grams?|pounds?|seconds?|minutes?|hours?|days?"
    r"|weeks?|months?|years?|points?|radians?)"
)
# Applied in order. `\text` stands for every command that sets words.
_REWRITES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\\$|(?<!\\)\\[()\[\]]|\$|[€£]", ""),
        (r"\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])\.?", ""),
        (r"\\(?:displaystyle|textstyle|limits|hfill)(?![A-Za-z])", ""),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\(?:math|text)(?:rm|bf|it|sf|tt|normal)(?![A-Za-z])|\\(?:mbox|boldsymbol|bm)(?![A-Za-z])", r"\\text"),
        (r"\\(?:langle|lparen)(?![A-Za-z])", "("),
        (r"\\(?:rangle|rparen)(?![A-Za-z])", ")"),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\(?:leq|leqslant)(?![A-Za-z])|(?<![<=])<=", r"\\le "),
        (r"\\(?:geq|geqslant)(?![A-Za-z])|>=", r"\\ge "),
        (r"\\neq(?![A-Za-z])|!=", r"\\ne "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\varnothing(?![A-Za-z])", r"\\emptyset "),
        # Separators of thousands that only a number can have; a bare comma is looked at in `exact_number`.
        (r"(?<=\d)\s*(?:\{,\}|,?\\!|\\,)\s*(?:\\!\s*)?(?=\d{3}(?!\d))", ""),
        (r"\\!", ""),
        # One space for a run of them: what follows tries every way to split a run.
        (r"(?:(?<!\\)\\[ ,;:>]|~|\\q?quad(?![A-Za-z])|\s)+", " "),
        (r"\s*,?\s*(?:\\text\s*\{\s*(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))\s*", ","),
        (r"\s*\^\s*\{?\s*\\circ(?![A-Za-z])\s*\}?|\s*\\degree(?![A-Za-z])", ""),
        (r"^\\text\s*\{[^{}]*\}\s*(?:=|:)\s*|^[A-Za-z]\s*\\in(?![A-Za-z])\s*", ""),
        # Words before a value, as in "The answer is 5".
        (r"^\\text\s*\{[^{}]*\}\s*(?=-?\s*(?:[\d.]|\\frac|\\sqrt|\\pi))", ""),
        (r"\\mathbb\s+([A-Z])", r"\\mathbb{\1}"),
        # Units: words after a value, with or without an exponent.
        (r"(?<=[\d)}\]])\s*\\text\s*\{[^{}]*\}(?:\s*\^\s*\{?\d\}?)?", ""),
        (r"(?<=\w)\s*\\text\s*\{[^{}]*\}(?:\s*\^\s*\{?\d\}?)?$", ""),
        (rf"(?<=[\d)}}\]])\s*{_UNIT_WORDS}(?:\s*\^\s*\{{?\d\}}?)?\.?$", ""),
        (rf"(?<=[\da-z)}}\]])\s+{_UNIT_WORDS}(?:\s*\^\s*\{{?\d\}}?)?\.?$", ""),
        # Spellings of calculators and programs.
        (r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)|\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1\2}"),
        (r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi "),
        (r"(?<![\\A-Za-z])(?:infinity|inf|oo)(?![A-Za-z])", r"\\infty "),
        (r"(?<=\d)[eE]([+-]?\d+)(?![\d.])", r"\\times10^{\1}"),
        # Braces that LaTeX lets one leave out.
        (r"\\frac\s*([\dA-Za-z])\s*([\dA-Za-z])", r"\\frac{\1}{\2}"),
        (r"\\frac\s*([\dA-Za-z])\s*\{", r"\\frac{\1}{"),
        (r"(\\frac\s*\{[^{}]*\})\s*([\dA-Za-z])", r"\1{\2}"),
        (r"\\sqrt\s*(\[[^\[\]]*\])?\s*([\dA-Za-z])", r"\\sqrt\1{\2}"),
        (r"([\^_])\s*\{([\dA-Za-z])\}", r"\1\2"),
        (r"\\text\s*\{\s*([A-Za-z])\s*\}", r"\1"),
        (r"(?<=\d)\s+(?=\d+\s*/\s*\d)", "&"),
        (r"(?<=\d)\s+(?=\d)", "~"),
        (r"(\\[A-Za-z]+)\s+(?=[A-Za-z])", r"\1~"),
        (r"\s+", ""),
    )
)
_SPACES = re.compile(r"\s+")
_PERCENT_WORDS = r"(?:per ?cents?|pct|percentage(?: points?)?)"
_PERCENT = re.compile(rf"\s*(?:\\?%|(?<![A-Za-z]){_PERCENT_WORDS}\b\.?|\\text\s*\{{\s*{_PERCENT_WORDS}\.?\s*\}})")
_TEXT_ONLY = re.compile(r"^\s*\\(?:(?:math|text)(?:rm|bf|it|sf|tt|normal)?|mbox)\s*\{([^{}]*)\}[\s.]*$")
_BARE_WORDS = re.compile(
    r"^(?:an? |the )?(?!(?:sin|cos|tan|cot|sec|csc|arc|log|exp|sqrt|inf))[A-Za-z]{4,}(?: [A-Za-z']+)*$"
)
_LETTER_CHOICE = re.compile(r"\(?([A-Z])\)?")
_UNSIGNED = r"(?:\d{1,3}(?:[,~]\d{3})+(?:\.\d+)?|\d+\.?\d*|\.\d+)"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]*)(?:"
    rf"(?:(?P<whole>\d+)(?:&|(?=\\frac)))?(?:\\frac\{{(?P<n1>-?\d+)\}}\{{(?P<d1>-?\d+)\}}|(?P<n2>{_UNSIGNED})/(?P<d2>\d+))"
    rf"|(?P<value>{_UNSIGNED})(?:(?:\\times|\\cdot|\*)~?10\^\{{?(?P<exponent>[+-]?\d{{1,3}})\}}?)?)"
)


def has_percent(latex: str) -> bool:
    return _PERCENT.search(latex) is not None


def words(latex: str) -> str | None:
    r"""The words of an answer that is words (`\text{East}`, `\text{(C)}`, `an ellipse`), as `plain_words` has them;
    None for a formula, a number, or a number with its unit."""
    match = _TEXT_ONLY.match(latex)
    content = (match.group(1) if match else latex).strip().rstrip(".")
    is_words = re.match(r"[^\d.-]*[A-Za-z]", content) if match else _BARE_WORDS.match(content)
    return plain_words(content) if is_words else None


def plain_words(latex: str) -> str:
    """Letters and digits alone, in lower case, without commands and an article at the start."""
    content = re.sub(r"\\[a-zA-Z]+", " ", latex).lower()
    content = re.sub(r"^[\s{]*(?:an?|the)\s+", "", content)
    return re.sub(r"[^a-z0-9]", "", content)


def normal_form(latex: str) -> str:
    """One spelling of a formula: no units, percent, degree or currency signs, no spacing, full braces.

    `&` stands between the parts of a mixed number written `5 1/2`, `~` where a space has a meaning.
    """
    text = scaled(_without_outer_braces(plain(latex)))
    whole = _TEXT_ONLY.match(text)
    if whole:
        text = whole.group(1).strip()
    text = _PERCENT.sub("", text).rstrip(" .,;")
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = text.rstrip(".,;")
    single = re.fullmatch(r"\((-?[\d.]+)\)", text)
    return single.group(1) if single else text


@lru_cache(maxsize=1024)
def plain(latex: str) -> str:
    """An answer in ASCII's LaTeX, without what only dresses it: colours, fonts, sizes, HTML, Markdown, line breaks."""
    if not latex.isascii():
        latex = _RAISED.sub(lambda m: f"^{{{unicodedata.normalize('NFKC', m[0])}}}", latex)
        latex = _LOWERED.sub(lambda m: f"_{{{unicodedata.normalize('NFKC', m[0])}}}", latex)
        latex = _VULGAR.sub(_common_fraction, latex)
        latex = unicodedata.normalize("NFKC", latex.translate(_CHARACTERS).translate(_GREEK)).translate(_CHARACTERS)
    text = _SPACES.sub(" ", latex).strip()
    if not text.isalnum():
        for pattern, replacement in _MARKUP:
            text = pattern.sub(replacement, text)
        text = text.strip()
    return text


def _common_fraction(match: re.Match[str]) -> str:
    top, _, bottom = unicodedata.normalize("NFKC", match[0]).partition("\N{FRACTION SLASH}")
    return rf"\frac{{{top}}}{{{bottom}}}"


def value_in_words(latex: str) -> Fraction | None:
    """The value of an answer that is a number in words, else None."""
    said = plain(latex)
    if not re.search("[A-Za-z]{2}", said) or re.search(r"[=<>^_(]|\\(?!text|mathrm|mbox|[ ,;:])", said):
        return None
    return number_in_words(said)


def _without_outer_braces(text: str) -> str:
    # A box inside the box leaves them.
    closes = brace_pairs(text)
    begin, end = 0, len(text)
    while closes.get(begin) == end - 1:
        begin, end = begin + 1, end - 1
        while begin < end and text[begin].isspace():
            begin += 1
        while begin < end and text[end - 1].isspace():
            end -= 1
    return text[begin:end]


def exact_number(form: str) -> Fraction | None:
    """The value of a normal form that is a plain number: integer, with separators of thousands, decimal, fraction,
    mixed number or power-of-ten notation; None for anything else. Decimals are exact: 0.33 is not 1/3."""
    match = _NUMBER.fullmatch(form)
    if match is None:
        return None
    part = match.groupdict()
    if part["value"] is not None:
        value = _fraction(part["value"]) * Fraction(10) ** int(part["exponent"] or 0)
    else:
        denominator = Fraction(part["d1"] or part["d2"])
        if denominator == 0:
            return None
        value = _fraction(part["n1"] or part["n2"]) / denominator + int(part["whole"] or 0)
    return -value if part["sign"].count("-") % 2 else value


def _fraction(digits: str) -> Fraction:
    return Fraction(digits.replace(",", "").replace("~", ""))


def vote_key(extracted: str) -> str:
    """What two answers of one question share when they are the same vote: the exact value of a number, the words of a
    text, else the normal form. Cruder than the grader, which also knows algebra; it never joins what differs by more
    than MATH's conventions."""
    spelled = words(extracted)
    if spelled is not None:
        return f"text {spelled}"
    form = normal_form(extracted)
    value = exact_number(form)
    if value is not None:
        return str(value)
    letter = _LETTER_CHOICE.fullmatch(form)
    return f"text {letter.group(1).lower()}" if letter else form
