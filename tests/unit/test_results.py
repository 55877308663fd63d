"""Results are read as they were written, files of before are read, and everything else is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_study import all_benchmarks, evaluated, figure

from lrm_safety.errors import DataError
from lrm_safety.results import (
    Audit,
    BenchmarkData,
    Check,
    Difference,
    Evaluation,
    Memorization,
    Metric,
    Reflection,
    Results,
    as_json,
)
from lrm_safety.statistics import estimate, paired_difference

KINDS: tuple[type[Results], ...] = (Evaluation, Reflection, Memorization, Audit)
BEFORE = Path(__file__).parent / "results_of_format_1"
"""Files that were written before results had types; the audit's has no format."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Every value that a type hint of the results allows, fields with a default present or not."""
    origin, members = get_origin(kind), get_args(kind)
    simple = {
        Any: JSON,
        str: st.text(),
        int: st.integers(),
        bool: st.booleans(),
        float: st.floats(allow_nan=False, allow_infinity=False),
        type(None): st.none(),
    }
    if kind in simple:
        return simple[kind]
    if origin in (Union, UnionType):
        return st.one_of(*map(values_of, members))
    if origin is Literal:
        return st.sampled_from(members)
    if origin is tuple:
        return st.lists(values_of(members[0]), max_size=2).map(tuple)
    if origin is Mapping:
        return st.dictionaries(st.text(), values_of(members[1]), max_size=2)
    assert is_dataclass(kind)
    hints = get_type_hints(kind)
    with_default = {one.name for one in fields(kind) if (one.default, one.default_factory) != (MISSING, MISSING)}
    given = {one.name: values_of(hints[one.name]) for one in fields(kind)}
    return st.fixed_dictionaries(
        {name: one for name, one in given.items() if name not in with_default},
        optional={name: one for name, one in given.items() if name in with_default},
    ).map(lambda found: kind(**found))


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_written_is_read(kind: type[Results]) -> None:
    @given(values_of(kind))
    def there_and_back(made: Results) -> None:
        with TemporaryDirectory() as folder:
            made.write(Path(folder))
            assert kind.read(Path(folder)) == kind.read(Path(folder, kind.FILE)) == made

    there_and_back()


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_before_are_read(kind: type[Results], tmp_path: Path) -> None:
    before = json.loads((BEFORE / kind.FILE).read_text())
    kind.read(BEFORE).write(tmp_path)
    written = json.loads((tmp_path / kind.FILE).read_text())
    if kind is Evaluation:  # what is counted since
        for benchmark in written["benchmarks"].values():
            assert (benchmark["data"].pop("num_unwrapped"), benchmark["data"].pop("num_repeats")) == (0, 0)
    assert written == {"format": 1} | before
    assert json.dumps(written) == json.dumps({"format": 1} | before), "in the same order"


def test_metrics_of_statistics() -> None:
    # Of 3 of 4 Wilson's interval: centre (0.75 + z^2/8) / (1 + z^2/4), z = 1.959964.
    found = Metric.of(estimate([1.0, 1.0, 1.0, 0.0], seed=0))
    assert (found.value, found.n) == (0.75, 4)
    assert (found.low, found.high) == (pytest.approx(0.300642, abs=1e-6), pytest.approx(0.954413, abs=1e-6))
    assert Metric.of(estimate([], seed=0)) == Metric(None, None, None, 0)
    one = Difference.between(paired_difference({"a": 1.0, "b": 1.0}, {"a": 0.0, "c": 1.0}, seed=0))
    assert (one.value, one.n, one.p_value, one.test, one.num_unmatched) == (1.0, 1, 1.0, "mcnemar_exact", 2)
    nothing = Difference.between(paired_difference({"a": 1.0}, {"b": 1.0}, seed=0))
    assert (nothing.value, nothing.low, nothing.n, nothing.p_value, nothing.num_unmatched) == (None, None, 0, None, 2)


def test_own_cells_are_those_of_the_first_temperature() -> None:
    results = Reflection.read(BEFORE)
    own = replace(results.cells[0], reader="base", writer="base", benchmark="sums", temperature=1.0)
    others = (replace(own, temperature=0.5), replace(own, writer="rl"), replace(own, benchmark="more"))
    assert replace(results, cells=(own, *others)).own_cells() == [own, others[2]]


def test_what_is_none_by_default_is_left_out_and_what_has_to_be_told_is_null() -> None:
    check = Check("full", "length", None, "none", "nobody knows")
    assert as_json(check)["value"] is None
    view = Audit.read(BEFORE).models["made"].figures["trace"]
    assert view.by_format is None and not {"by_format", "format_shift", "refusal_opener"} & as_json(view).keys()
    assert as_json({"x": (figure(0.5),)}) == {"x": [{"value": 0.5, "low": 0.45, "high": 0.55, "n": 100}]}


MADE = as_json(evaluated(all_benchmarks(0.5, 0.5, 0.1, 0.4)))


def changed(**changes: Any) -> str:
    """results.json with members changed by their path (`__` for a dot); None removes one."""
    content = json.loads(json.dumps({"format": 1} | MADE))
    for path, value in changes.items():
        *above, name = path.split("__")
        member = content
        for one in above:
            member = member[one]
        if value is None:
            del member[name]
        else:
            member[name] = value
    return json.dumps(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "is absent; run lrm-safety evaluate, or name another folder"),
        (
            "",
            "cannot be read: is not JSON (Expecting value: line 1 column 1 (char 0)); run lrm-safety evaluate, or name ",
        ),
        ('{"format": 1, "bench', "cannot be read: is not JSON (Unterminated string"),
        ("[]", "cannot be read: is not a JSON object; run lrm-safety evaluate, or name another folder"),
        (
            changed(format=2),
            "has format 2, this version of lrm-safety reads 1; run lrm-safety evaluate again, or use the version that wrote it",
        ),
        (changed(format=0), "has format 0, this version of lrm-safety reads 1; "),
        (changed(format="1"), "has format '1', this version of lrm-safety reads 1; "),
        (changed(format=True), "has format True, this version of lrm-safety reads 1; "),
        (
            json.dumps({"base": "made/up", "head_is_new": True}),
            "holds the unknown key base; ",
        ),
        (
            changed(seed=None),
            "lacks seed; this version of lrm-safety evaluate writes no such file: run it again, or name another folder",
        ),
        (changed(benchmarks__attaq__primary=None), "lacks benchmarks.attaq.primary; "),
        (changed(benchmarks__attaq__data__num_questions=None), "lacks benchmarks.attaq.data.num_questions; "),
        (changed(benchmarks__attaq__extra=1), "holds the unknown key benchmarks.attaq.extra; "),
        (changed(seed="3"), "seed is a text and not a whole number; "),
        (changed(seed=True), "seed is true or false and not a whole number; "),
        (changed(seed=1.5), "seed is a number and not a whole number; "),
        (changed(benchmarks=[]), "benchmarks is a list and not an object; "),
        (
            changed(benchmarks__attaq__questions__q0="x"),
            "benchmarks.attaq.questions.q0 is a text and not a number; ",
        ),
        (changed(seconds__generate_seconds=float("nan")), "seconds.generate_seconds is nan and not a number; "),
    ],
)
def test_what_is_no_results_is_refused_in_one_line(tmp_path: Path, content: str | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(DataError) as refused:
        Evaluation.read(tmp_path)
    said = str(refused.value)
    assert said.startswith(f"{tmp_path / 'results.json'}: {reason}") and "\n" not in said


def test_the_wrong_kind_and_a_wrong_member_of_a_list_are_named(tmp_path: Path) -> None:
    content = json.loads((BEFORE / "reflection.json").read_text())
    path = tmp_path / "reflection.json"
    path.write_text(json.dumps(content | {"kind": "memorization"}))
    with pytest.raises(DataError, match=r"reflection\.json: kind is 'memorization' and not reflection; "):
        Reflection.read(path)
    content["differences"][1]["kind"] = "theirs"
    path.write_text(json.dumps(content))
    with pytest.raises(
        DataError, match=r"differences\[1\]\.kind is 'theirs' and not own_responses or same_responses; "
    ):
        Reflection.read(path)


def test_whole_numbers_stand_for_numbers(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(changed(seconds__generate_seconds=60, protocol__temperature=1))
    read = Evaluation.read(tmp_path)
    assert read.seconds["generate_seconds"] == 60.0 and type(read.protocol.temperature) is float


def test_numbers_that_json_lacks_are_not_written(tmp_path: Path) -> None:
    made = replace(evaluated({}), seconds={"generate_seconds": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        made.write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_counts_of_the_source_are_of_the_data(tmp_path: Path) -> None:
    data = BenchmarkData("x.jsonl", "0", 8, 1, num_unwrapped=3, num_repeats=2)
    one = replace(all_benchmarks(0.5, 0.5, 0.1, 0.4)["attaq"], data=data)
    evaluated({"x": one}).write(tmp_path)
    written = json.loads((tmp_path / "results.json").read_text())["benchmarks"]["x"]["data"]
    assert (written["num_unwrapped"], written["num_repeats"]) == (3, 2)
    assert Evaluation.read(tmp_path).benchmarks["x"].data == data
