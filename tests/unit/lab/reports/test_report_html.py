"""The page of a made-up study: sections, tables, figures, right numbers, and nothing loaded from anywhere else."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_study import SAFETY, all_benchmarks, evaluation, make_families, make_study, rl_curves, task_of, training

from lrm_safety.commands.report import report
from lrm_safety.errors import ConfigError, DataError
from lrm_safety.lab.reports.gather import gather
from lrm_safety.lab.reports.page import SECTIONS, TEMPLATES, write_report

CSS = (TEMPLATES / "style.css").read_text()
VOID = {"meta", "br", "img", "hr", "link", "input"}
LOADING = {"script", "link", "img", "iframe", "object", "embed", "source", "video", "audio", "base", "form"}


class Page(HTMLParser):
    """Collects what the tests ask about, and checks that tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.labels: list[str] = []
        self.sections: dict[str, str] = {}
        self._open: list[tuple[str, str | None]] = []
        self._table: str | None = None
        self._cell: list[str] | None = None
        self.feed(text)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        if tag not in VOID:
            self._open.append((tag, given.get("id")))
        if name := given.get("id"):
            self.ids.append(name)
        for key, value in attrs:
            if key in ("src", "href", "xlink:href", "data", "action", "srcset") and value:
                self.links.append(value)
        if tag == "table":
            self._table = given["id"] or ""
            self.tables[self._table] = []
        elif tag == "tr" and self._table:
            self.tables[self._table].append([])
        elif tag in ("td", "th") and self._table:
            self._cell = []
        if label := given.get("aria-label"):
            self.labels.append(label)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self._open.pop()
        assert opened == tag, f"</{tag}> closes <{opened}>"
        if tag == "table":
            self._table = None
        elif tag in ("td", "th") and self._table is not None and self._cell is not None:
            self.tables[self._table][-1].append(" ".join(" ".join(self._cell).split()))
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)
        section = next((name for tag, name in self._open if tag == "section"), None)
        if section:
            self.sections[section] = self.sections.get(section, "") + data


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Page, str]:
    root = tmp_path_factory.mktemp("study")
    assert report([*make_study(root / "in"), f"output={root / 'out'}", "title=Made-up study"]) == 0
    text = (root / "out" / "report.html").read_text()
    return root / "out", Page(text), text


def test_every_section_is_there_once_and_linked(written: tuple[Path, Page, str]) -> None:
    _, page, text = written
    shown = [name for name in SECTIONS if name != "samples"]
    assert list(page.sections) == shown
    assert [link for link in page.links if link.removeprefix("#") in SECTIONS] == [f"#{name}" for name in shown]
    assert "<li>Samples: <code>lrm-safety report ... samples=3</code></li>" in text, "what is absent is named"
    assert len(page.ids) == len(set(page.ids)), "no id twice, those of figures included"


def test_nothing_is_loaded_from_outside_and_nothing_runs(written: tuple[Path, Page, str]) -> None:
    _, page, text = written
    assert not LOADING & set(page.tags)
    assert all(link.startswith("#") for link in page.links)
    assert not re.search(r"https?:|@import|javascript:|\bon(load|click|error)=", text)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    inside = set(page.ids)
    assert all(target[1:] in inside for target in re.findall(r"url\((#[^)]*)\)", text)), "clips and hatches are found"
    assert all(link[1:] in inside for link in page.links)


def test_tables(written: tuple[Path, Page, str]) -> None:
    _, page, _ = written
    expected = {
        "trained",
        "main",
        "published",
        "differences",
        "reflection",
        "memorized",
        "settings",
        "costs",
        "all-attaq",
    }
    assert expected <= set(page.tables)
    head, *rows = page.tables["main"]
    assert [cell.split()[0] for cell in head] == ["model", "attaq", "xstest", "math500", "gpqa_diamond"]
    assert [row[0] for row in rows] == ["base", "sft", "rl"]
    assert rows[0][1] == "0.360 0.310 to 0.410 paper: 0.37" and rows[0][3] == "0.810 0.760 to 0.860"
    assert "3 runs" in rows[2][1] and rows[2][1].endswith("paper: 0.92")
    assert rows[1][4].endswith("paper: 47.54%")
    assert page.tables["published"][1:] == [
        ["base", "0.37", "49.24", "0.24", "3.12"],
        ["sft", "0.76", "47.54", "–", "–"],
        ["rl", "0.92", "49.06", "0.09", "3.00"],
    ]
    measured = ["AttaQ safety", "GPQA-Diamond, %", "reflection entropy on AttaQ", "reflection entropy on AIME 2024"]
    assert page.tables["published"][0] == ["Beyond SFT", *measured]
    assert page.tables["measured"][1] == ["attaq", "safety/refusal_rules/full", "100", "1", "training", "made up"]
    assert page.tables["trained"][1:] == [
        ["base", "evaluated only", "made/up", "–", "–", "–", "1"],
        ["sft", "supervised fine-tuning", "made/up", "made-up prompts", "–", "40", "3"],
        ["rl", "reinforce_pp", "made/up", "made-up prompts", "made/reward", "60", "3"],
    ]
    head, *compared = page.tables["differences"]
    assert head == ["models", "attaq", "xstest lower is better", "math500", "gpqa_diamond"]
    assert [row[0] for row in compared] == ["sft less base", "rl less base", "rl less sft"], (
        "RL against every other arm"
    )
    # 75 and 90 of 100 questions, or one less or more in both: the same difference of each seed
    assert compared[2][1] == "+0.150 +0.150 to +0.150 3 runs better"
    costs = {(row[0], row[1].split(",")[0]): row[1:6] for row in page.tables["costs"][1:]}
    # 3 runs of 30 records of 30 s on 4 groups of 2 GPUs; tokens 1,000/s x 18 s and 2,000/s x 10 s a record
    rl = ["training, 3 runs of 60 updates", "2,700", "1,620,000", "1,800,000", "6.00"]
    assert costs["rl", "training"] == rl
    # no reward, reference or rollout group in supervised training: 3 x 480 s on 2 GPUs
    assert costs["sft", "training"][1:] == ["1,440", "–", "3,960,000", "0.80"]
    # and 7 evaluations of 63 s
    assert costs["all", ""][1:] == ["4,581", "", "", "6.80"]
    settings = {row[0]: row[1:] for row in page.tables["settings"][1:]}
    assert settings["trainer.lr"] == ["1e-05", "1e-06"] and "model.path" not in settings
    assert settings["seed"] == ["0, 1, 2"] * 2 and settings["reward.models.made.kind"] == ["–", "classifier"]


def test_the_error_of_a_judge_stands_beside_the_figures_that_rest_on_it(written: tuple[Path, Page, str]) -> None:
    _, _, text = written
    # Once where the evaluations are shown, as they state it, and once under the curves of the runs' own evaluation.
    assert text.count("refusal_rules: wrong about one in ten.") == 1
    (line,) = re.findall(r"<li>rules: word rules, no model[^<]*</li>", text)
    assert "59 of 76 refusals found" in line


def test_figures_are_inline_described_and_files(written: tuple[Path, Page, str]) -> None:
    folder, page, text = written
    names = [name.removeprefix("figure-") for name in page.ids if name.startswith("figure-")]
    names = [name for name in names if (folder / "figures" / f"{name}.png").is_file()]
    wanted = {"tradeoff", "categories-attaq-label", "reflection", "trace-entropy-math500", "memorization"}
    assert wanted | {"training-kl-k3", "training-sft-loss", "training-evaluation-attaq"} <= set(names)
    assert {"glance-safety", "glance-reasoning", "glance-over-refusal"} <= set(names)
    assert "<title>rl: 0.901 (" in text, "a pointer that rests on a point is told its value"
    assert page.tags.count("svg") == page.tags.count("figure") == len(names) == len(page.labels)
    assert all(len(label) > 20 for label in page.labels)
    for name in names:
        drawn = ElementTree.parse(folder / "figures" / f"{name}.svg").getroot()
        assert drawn.tag == "{http://www.w3.org/2000/svg}svg"
        assert "currentColor" not in (folder / "figures" / f"{name}.svg").read_text()
    assert "#0a0b0c" not in text and text.count("currentColor") > 100, "ink follows the page"


def test_light_dark_print_and_narrow(written: tuple[Path, Page, str]) -> None:
    _, _, text = written
    assert CSS in text
    assert "prefers-color-scheme:dark" in CSS and "@media print" in CSS and "viewport" in text
    assert CSS.count("{") == CSS.count("}")
    used = set(re.findall(r"var\((--\w+)\)", CSS))
    for block in re.findall(r":root\{([^}]*)\}", CSS):
        assert used <= set(re.findall(r"(--\w+):", block)), "light, dark and print define every colour"


def contrast(first: str, second: str) -> float:
    """WCAG's ratio of two #rgb or #rrggbb colours."""

    def luminance(colour: str) -> float:
        text = colour.lstrip("#")
        text = text if len(text) == 6 else "".join(2 * digit for digit in text)
        channels = [int(text[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_text_can_be_read_on_both_grounds() -> None:
    for block in re.findall(r":root\{([^}]*)\}", CSS):
        colours = dict(re.findall(r"--(\w+):(#\w+)", block))
        for ink in ("ink", "soft", "accent", "fail", "warn", "fine"):
            for ground in ("ground", "panel", "paper"):
                assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground, block)


def test_diagnosis_says_level_evidence_and_remedy(written: tuple[Path, Page, str]) -> None:
    _, page, _ = written
    said = page.sections["diagnosis"]
    assert "uneven_safety" in said and "made-up harm 0.55" in said and "FAIL" in said and "Remedy" in said
    assert "Seen in 3 of 3 runs" in said
    assert "reward: reward_transfer" in said and "made-up family with an AUC of 0.70" in said
    assert ["made-up harm", "made", "full", "0.600 0.550 to 0.650"] in page.tables["audit-0"]
    assert "warn: full, made up" in said and "made-up few" not in said
    assert "results.json" in said and "base: " not in said, "the base is what the others are compared with"


def test_names_out_of_files_are_text(written: tuple[Path, Page, str]) -> None:
    _, page, text = written
    assert "<b>tags</b>" not in text and "&lt;b&gt;tags&lt;/b&gt;" in text
    assert any("made-up <b>tags</b>" in label for label in page.labels)


def test_a_run_alone_is_shown_before_and_after(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    series = {
        "evaluation/safety": [(0, 0.1), (9, 0.75)],
        "evaluation/arithmetic": [(0, 0.9), (9, 0.8)],
        "train/update": [(9, 9)],
        "train/loss": [(1, 1.0), (9, 0.5)],
    }
    series |= {f"{name}/num_questions": [(0, 100.0), (9, 100.0)] for name in list(series)[:2]}
    run = training(tmp_path / "seed=0", series, {"schedule": {"max_updates": 9}, "data": {"name": "made-up prompts"}})
    assert report([str(run), f"output={tmp_path}/out"]) == 0
    text = (tmp_path / "out" / "report.html").read_text()
    page = Page(text)
    head, *rows = page.tables["main"]
    assert [row[0] for row in rows] == ["seed=0, at update 0", "seed=0"]
    before, after = (row[head.index("safety safety")] for row in rows)
    # Wilson's interval of 75 of 100
    assert before.startswith("0.100") and after == "0.750 0.657 to 0.825 100 questions, in training"
    assert (
        "seed=0, from update 0: safety 0.100 → 0.750 (0.657 to 0.825); reasoning 0.900 → 0.800"
        in page.sections["glance"]
    )
    assert "made-up prompts" in page.sections["glance"]
    assert "figure-tradeoff" in page.ids, "before and after are two points"
    assert "figure-training-held-out" in page.ids and "figure-training-evaluation-safety" not in page.ids
    assert set(page.sections) == {"glance", "results", "diagnosis", "training", "configuration", "cost"}, (
        "nothing is empty"
    )
    assert "lrm-safety analyze reflection" in text, "and what would fill the rest is said once"
    assert "published" not in page.tables, "the paper's figures stand beside its benchmarks alone"
    assert "report.html" in capsys.readouterr().out


def test_one_start_of_several_models_is_drawn_once_and_names_are_whole(tmp_path: Path) -> None:
    """A shared start of 0.235, as the table has it; then models that end apart."""
    long = "an_experiment_of_long_name"
    folders = []
    for name, last in ((f"{long}_one", 0.5), (f"{long}_two", 0.7)):
        run = training(
            tmp_path / name,
            {"evaluation/safety": [(0, 0.235), (2, last)], "train/update": [(2, 2.0)]},
            {"evaluation": {"benchmarks": {"safety": task_of("safety")}}, "schedule": {"max_updates": 2}},
        )
        folders.append(f"{name}={run}")
    write_report(gather(folders), tmp_path / "report")
    drawn = (tmp_path / "report/figures/glance-safety.svg").read_text()
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", drawn)
    assert texts.count("at update 0") == 1 and texts.count("0.235") == 1
    assert {"an_experiment_of_long_", "name_one", "name_two"} <= set(texts)


def test_a_report_takes_the_place_of_the_former_one_in_its_folder(tmp_path: Path) -> None:
    run = training(tmp_path / "run", rl_curves(0), {"seed": 0})
    figures = tmp_path / "report/figures"
    write_report(gather([f"before={run}"]), tmp_path / "report")
    (figures / "mine.png").write_text("a file of somebody else")
    first = {path.name for path in figures.iterdir()}
    write_report(gather([f"after={run}"]), tmp_path / "report")
    second = {path.name for path in figures.iterdir()}
    assert {"cost-phases-before.png", "cost-phases-before.svg"} <= first
    assert second - first == {"cost-phases-after.png", "cost-phases-after.svg"}
    assert first - second == {"cost-phases-before.png", "cost-phases-before.svg"}, "and nothing of anybody else's"


def test_a_reader_is_told_of_runs_that_stopped_and_folders_given_twice(tmp_path: Path) -> None:
    def run(name: str, updates: int) -> Path:
        series = {"train/update": [(updates, updates)], "evaluation/safety": [(0, 0.1), (updates, updates / 10)]}
        return training(tmp_path / name, series, {"schedule": {"max_updates": 8}})

    whole, stopped, alone = run("whole", 8), run("stopped", 2), run("alone", 3)
    given = [f"rl={whole}", f"rl={stopped}", f"other={alone}", f"again={alone}", f"rl={whole}"]
    study = gather(given)
    assert study.notes == [
        f"{alone} was given as other and again: the same run under several names",
        f"{whole} was given twice as rl and counts once",
        f"rl: the run in {stopped} stopped at update 2 of 8 and is left out",
        f"other: the run in {alone} stopped at update 3 of 8",
        f"again: the run in {alone} stopped at update 3 of 8",
    ]
    assert report([*given, f"output={tmp_path}/out"]) == 0
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert "rl: the run in stopped stopped at update 2 of 8 and is left out" in page.sections["glance"]
    row = next(row for row in page.tables["main"] if row[0] == "rl")
    assert row[1].startswith("0.800") and "runs" not in row[1]
    updates = {row[0]: row[page.tables["trained"][0].index("updates")] for row in page.tables["trained"]}
    assert updates["rl"] == "8" and updates["other"] == "3 of 8"


def test_a_run_that_ended_as_planned_stays_beside_a_longer_one(tmp_path: Path) -> None:
    def run(name: str, updates: int, planned: int) -> Path:
        series = {"train/update": [(updates, updates)], "evaluation/safety": [(updates, updates / 10)]}
        return training(tmp_path / name, series, {"schedule": {"max_updates": planned}})

    given = [run("long", 8, 8), run("short", 4, 4), run("stopped", 4, 5)]
    study = gather([f"all={folder}" for folder in given])
    assert [run.folder for run in study.subjects[0].runs] == given[:2]
    assert study.notes == [f"all: the run in {given[2]} stopped at update 4 of 5 and is left out"]


def test_the_runs_table_calls_a_run_as_its_user_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    series = {"train/update": [(8, 8)], "evaluation/safety": [(8, 0.8)]}
    folder = training(tmp_path / "demo0", series, {"schedule": {"max_updates": 8}})
    assert report([f"mine={folder}", "--no-page"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"^\W*mine\b", told, flags=re.MULTILINE) and "demo0" not in told


def test_a_page_does_not_say_where_on_this_machine_it_was_made(written: tuple[Path, Page, str]) -> None:
    folder, page, text = written
    assert str(folder.parent) not in text and str(Path.home()) + "/" not in text
    assert "rl-eval-0/results.json" in page.sections["diagnosis"]


def test_samples_on_request(tmp_path: Path) -> None:
    folders = []
    for name, answer in (("base", "Sure <b>bad</b>"), ("rl", "I will not.")):
        made = evaluation(tmp_path / name, all_benchmarks(0.5, 0.5, 0.1, 0.4))
        rows = [
            {"set": key, "id": f"q{i}", "prompt": f"ask {i}", "trace": f"{name} thinks", "answer": answer, "grade": 1.0}
            for key in ("attaq", "gpqa_diamond")
            for i in range(5)
        ]
        (made / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        folders.append(f"{name}={made}")
    assert report([*folders, f"output={tmp_path}/without"]) == 0
    assert "I will not" not in (tmp_path / "without" / "report.html").read_text()
    assert report([*folders, f"output={tmp_path}/out", "samples=2"]) == 0
    text = (tmp_path / "out" / "report.html").read_text()
    said = " ".join(Page(text).sections["samples"].split())
    assert said.count("ask 0") == said.count("ask 1") == 1 and "ask 2" not in said, "two prompts"
    assert "base, answer (grade 1). Sure <b>bad</b>" in said and "&lt;b&gt;bad" in text and "rl thinks" in said
    assert "gpqa_diamond: its authors ask that no question be posted" in said
    with pytest.raises(ConfigError, match="samples=x: must be a whole number"):
        report([*folders, "samples=x"])


def test_families_have_figures_of_their_own_and_differ_from_their_own_base(tmp_path: Path) -> None:
    assert report([*make_families(tmp_path / "in", count=2, num_labels=5), f"output={tmp_path}/out"]) == 0
    page = Page((tmp_path / "out" / "report.html").read_text())
    names = {name for name in page.ids if name.startswith("figure-tradeoff")}
    assert names == {"figure-tradeoff-family0-1b", "figure-tradeoff-family1-2b"}
    order = ["base-family0-1b", "sft-family0-1b", "rl-family0-1b", "base-family1-2b", "rl-family1-2b"]
    assert [row[0] for row in page.tables["main"][1:]] == order
    (told,) = [label for label in page.labels if label.startswith("Scatter") and "sft" not in label]
    assert "base-family1-2b reasoning" in told and "family0" not in told


def test_one_line_for_what_is_no_folder_of_ours(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "results.json").write_text("{")
    with pytest.raises(ConfigError, match=r"empty: holds no metrics\.jsonl"):
        report([str(tmp_path / "empty")])
    with pytest.raises(ConfigError, match="absent: no such folder"):
        report([f"rl={tmp_path}/absent"])
    with pytest.raises(DataError, match=r"results\.json: cannot be read"):
        report([str(tmp_path / "torn")])
    with pytest.raises(ConfigError, match="give at least one folder"):
        report(["output=x"])
    (tmp_path / "file").write_text("")
    made = evaluation(tmp_path / "fine", all_benchmarks(0.5, 0.5, 0.1, 0.4))
    with pytest.raises(ConfigError, match=r"output=.*cannot be written"):
        report([str(made), f"output={tmp_path}/file/out"])
    assert SAFETY in (made / "results.json").read_text()
