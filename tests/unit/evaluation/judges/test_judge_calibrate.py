import csv
import json
from pathlib import Path

import pytest

from lrm_safety.errors import DataError
from lrm_safety.evaluation.calibration import SETS, reference_sets
from lrm_safety.evaluation.judges.agreement import calibrate, load_air_bench_judged, load_xstest_completions
from lrm_safety.evaluation.judges.judge import JudgeItem, Verdict
from lrm_safety.evaluation.judges.refusal_rules import MEASURED, RefusalRules


class Scripted:
    """A judge that reads its verdict off the text."""

    name = "scripted"

    def judge(self, items):
        return [Verdict(None if item.text == "?" else float(item.text), "") for item in items]

    def close(self):
        pass


def test_calibration_by_hand():
    pairs = [("1", "safe"), ("0.5", "safe"), ("0.2", "safe"), ("0", "unsafe"), ("0.9", "unsafe"), ("?", "unsafe")]
    result = calibrate(Scripted(), [(JudgeItem("q", text, "answer"), label) for text, label in pairs])
    assert result.n == 5 and result.n_without_verdict == 1 and result.accuracy == pytest.approx(3 / 5)
    assert result.confusion.labels == ("safe", "unsafe") and result.confusion.counts == ((2, 1), (1, 1))
    # p_e = (3 * 3 + 2 * 2) / 25
    assert result.kappa == pytest.approx((3 / 5 - 13 / 25) / (12 / 25))


def test_xstest_rows(tmp_path):
    path = tmp_path / "completions.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "type", "prompt", "completion", "final_label"])
        writer.writerow(["1", "homonyms", "q1", "a1", "1_full_compliance"])
        writer.writerow(["2", "contrast_homonyms", "q2", "a2", "2_full_refusal"])
        writer.writerow(["3", "contrast_homonyms", "q3", "a3", "3_partial_refusal"])
        writer.writerow(["4", "contrast_homonyms", "q4", " ", "2_full_refusal"])
    items = load_xstest_completions(str(path))
    assert [(i.request, i.text, i.view, label) for i, label in items] == [
        ("q1", "a1", "answer", "unsafe"),
        ("q2", "a2", "answer", "safe"),
        ("q3", "a3", "answer", "safe"),
    ]
    assert [i.request for i, _ in load_xstest_completions(str(path), only_unsafe_prompts=True)] == ["q2", "q3"]
    path.write_text(path.read_text().replace("3_partial", "4_other"))
    with pytest.raises(DataError, match=r"completions\.csv, row 3: final_label '4_other_refusal'"):
        load_xstest_completions(str(path))
    path.write_text("prompt,completion\na,b\n")
    with pytest.raises(
        DataError, match="row 1: needs the fields prompt, completion, final_label, type, and lacks final_label"
    ):
        load_xstest_completions(str(path))
    with pytest.raises(DataError, match="no such file"):
        load_xstest_completions(str(tmp_path / "nowhere.csv"))


def test_air_bench_rows(tmp_path):
    path = tmp_path / "judged.jsonl"
    row = {"prompt": "[{'prompt': \"it's\"}]", "response": "no", "cate-idx": "1.2.3", "safe_score": 1.0}
    rows = [row, row | {"safe_score": "0.0", "prompt": "plain"}, row | {"safe_score": 0.5}, row | {"response": " "}]
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    items = load_air_bench_judged(str(path))
    assert [(i.request, i.category, label) for i, label in items] == [
        ("it's", "1.2.3", "safe"),
        ("plain", "1.2.3", "unsafe"),
    ]
    path.write_text(json.dumps({"prompt": "p"}) + "\n")
    with pytest.raises(
        DataError, match=r"judged\.jsonl, row 1: needs the fields prompt, response, cate-idx, and lacks response"
    ):
        load_air_bench_judged(str(path))
    path.write_text('{"prompt": \n')
    with pytest.raises(DataError, match="line 1: not valid JSON"):
        load_air_bench_judged(str(path))


@pytest.mark.parametrize("name", list(MEASURED))
def test_the_measured_error_of_the_rules_is_what_calibration_counts(
    name: str, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRM_SAFETY_DATA", str(data_root))
    assert set(MEASURED) == set(SETS)
    stated, items = MEASURED[name], reference_sets(name)[name]
    result = calibrate(RefusalRules(), items)
    (found, missed), (mistaken, right) = result.confusion.counts
    assert (found, found + missed, mistaken, mistaken + right) == (
        *(stated.found, stated.refusals),
        *(stated.mistaken, stated.complying),
    )
    assert result.n_without_verdict == 0 and stated.n == result.n == len(items)
    assert stated.accuracy == pytest.approx(result.accuracy) and stated.kappa == pytest.approx(result.kappa)
    if name == "air_bench":
        assert (stated.over_refusal, stated.of_unsafe) == (None, None)
        assert not any(item.request.startswith("[{") for item, _ in items)
        return
    unsafe = reference_sets(name, judges_of_harm=True)[name]
    harmful = calibrate(RefusalRules(), unsafe).confusion.counts
    assert stated.of_unsafe == (sum(harmful[0]), harmful[0][0] + harmful[1][0], len(unsafe))
    safe = [a - b for a, b in zip((found + missed, found + mistaken, len(items)), stated.of_unsafe, strict=True)]
    assert stated.over_refusal == tuple(safe)
