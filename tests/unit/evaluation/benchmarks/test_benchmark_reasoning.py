"""MATH500, AIME, GPQA, a user's own set and the miniature world's: invented rows, and the sets themselves."""

import json
import re
import sys
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrm_safety.errors import ConfigError, DataError
from lrm_safety.evaluation.benchmarks import aime, custom, gpqa, math500, miniature

MATH_LINE = "Please reason step by step, and put your final answer within \\boxed{}."
CHOICE_LINE = "Please reason step by step, and put the letter of your final answer within \\boxed{}."


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch):
    monkeypatch.delenv("LRM_SAFETY_DATA", raising=False)


@pytest.fixture
def save(tmp_path):
    """Writes rows as JSONL and gives the path."""

    def write(rows, name="a.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


@pytest.mark.parametrize("load", [math500.load, aime.load, gpqa.load])
def test_an_absent_file_is_named(load, tmp_path):
    with pytest.raises(DataError, match=r"^data=.*none\.jsonl: no such file$"):
        load(data=str(tmp_path / "none.jsonl"))


# --- MATH500

PROBLEM = {"problem": "What is 2 + 3?", "solution": "It is $\\boxed{5}$.", "answer": "5", "subject": "Sums", "level": 2}


def test_math500_rows(save):
    loaded = math500.load(data=save([PROBLEM, PROBLEM | {"answer": "\\frac{1}{2}", "level": "5"}]))
    first, second = loaded
    assert (first.id, first.request, first.target) == ("math500-000", "What is 2 + 3?", "5")
    assert first.prompt == f"What is 2 + 3?\n\n{MATH_LINE}"
    assert first.groups == {"subject": "Sums", "level": "2"}
    assert (second.id, second.target, second.groups["level"]) == ("math500-001", "\\frac{1}{2}", "5")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({key: value for key, value in PROBLEM.items() if key != "answer"}, "row 0: has no field answer"),
        (PROBLEM | {"answer": 5}, "field answer: is int, not str"),
        (PROBLEM | {"level": 1.5}, "field level: is float, not int or str"),
        (PROBLEM | {"problem": ""}, "field problem: is blank"),
    ],
)
def test_a_wrong_math500_row_is_named(row, message, save):
    with pytest.raises(DataError, match=message):
        math500.load(data=save([row]))


def test_math500_is_what_its_card_says(data_root, monkeypatch):
    monkeypatch.setenv("LRM_SAFETY_DATA", str(data_root))
    loaded = math500.load()
    assert len(loaded) == len({row.request for row in loaded}) == 500
    assert {row.groups["level"] for row in loaded} == set("12345")
    assert len({row.groups["subject"] for row in loaded}) == 7
    with (data_root / "math500" / "test.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    assert [(row.request, row.target) for row in loaded] == [(row["problem"], row["answer"]) for row in rows]
    assert all(row.prompt == f"{row.request}\n\n{MATH_LINE}" for row in loaded)


# --- AIME


@pytest.mark.parametrize(
    ("row", "target"),
    [
        ({"answer": "204"}, "204"),
        ({"answer": "025"}, "25"),
        ({"answer": "000"}, "0"),
        ({"answer": " 73 "}, "73"),
        ({"answer": 7}, "7"),
        ({"answer": 0}, "0"),
        ({"answer": "5", "solution": "\\boxed{6}"}, "5"),
        ({"solution": "First \\boxed{1}, then \\boxed{082}."}, "82"),
        ({"answer": None, "solution": "\\boxed{3}"}, "3"),
        ({"answer": "", "solution": "\\boxed{3}"}, "3"),
    ],
)
def test_aime_answers_are_integers(row, target, save):
    (question,) = aime.load(data=save([{"problem": "How many?"} | row]))
    assert (question.id, question.target) == ("aime24-00", target)
    assert question.request == "How many?" and question.prompt == f"How many?\n\n{MATH_LINE}"


@pytest.mark.parametrize(
    "row", [{}, {"answer": "1000"}, {"answer": "-1"}, {"answer": "3.5"}, {"answer": "x"}, {"solution": "It is 3."}]
)
def test_a_row_without_an_aime_answer_is_named(row, save):
    with pytest.raises(DataError, match=r"a\.jsonl, row 1: has no answer from 0 to 999") as caught:
        aime.load(data=save([{"problem": "p", "answer": "1"}, {"problem": "q"} | row]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("year", [23, 2024, "24"])
def test_another_year_is_told(year):
    with pytest.raises(ConfigError, match=rf"^year={year}: must be one of 24, 25$"):
        aime.load(year)


def test_parts_are_told_where_the_order_is_known(save):
    data = save([{"problem": str(i), "answer": i} for i in range(30)])
    assert [row.groups for row in aime.load(25, data)] == [{"part": "I"}] * 15 + [{"part": "II"}] * 15
    assert all(row.groups == {} for row in aime.load(24, data))
    fewer = save([{"problem": str(i), "answer": i} for i in range(29)], "fewer.jsonl")
    assert all(row.groups == {} for row in aime.load(25, fewer))


@pytest.mark.parametrize("year", [24, 25])
def test_aime_is_thirty_problems_a_year(year, data_root, monkeypatch):
    monkeypatch.setenv("LRM_SAFETY_DATA", str(data_root))
    loaded = aime.load(year)
    assert len(loaded) == len({row.request for row in loaded}) == 30
    assert [row.id for row in loaded] == [f"aime{year}-{i:02d}" for i in range(30)]
    assert all(0 <= int(row.target) <= 999 and row.target == str(int(row.target)) for row in loaded)
    # The solutions box the same numbers, padded or not.
    with (data_root / "aime" / f"aime{year}.jsonl").open(encoding="utf-8") as file:
        solutions = [json.loads(line)["solution"] for line in file]
    boxed = [re.findall(r"\\boxed\{(?:\\text\w*\{)?\(?0*(\d+)", solution) for solution in solutions]
    agreeing = sum(row.target in found for row, found in zip(loaded, boxed, strict=True))
    assert agreeing == (30 if year == 25 else sum(bool(found) for found in boxed))


# --- GPQA

PASSWORD = "open sesame"
CHOICE = {
    "Question": " Which is a pear? \n",
    "Correct Answer": "The pear",
    "Incorrect Answer 1": " a stone ",
    "Incorrect Answer 2": "a cloud",
    "Incorrect Answer 3": "a shoe",
    "High-level domain": "Fruit",
    "Subdomain": "Pears",
}


def encrypted(plain: bytes, password: bytes) -> bytes:
    """PKWARE's traditional cipher (APPNOTE 6.1), which zipfile can read but not write: a 12-byte header, then the data."""
    keys = [0x12345678, 0x23456789, 0x34567890]

    def crc(value, byte):
        # The update of CRC-32 by one byte, without zlib's inversion at both ends.
        return zlib.crc32(bytes([byte]), value ^ 0xFFFFFFFF) ^ 0xFFFFFFFF

    def update(byte):
        keys[0] = crc(keys[0], byte)
        keys[1] = ((keys[1] + (keys[0] & 0xFF)) * 134775813 + 1) & 0xFFFFFFFF
        keys[2] = crc(keys[2], keys[1] >> 24)

    for byte in password:
        update(byte)
    header = bytes(11) + bytes([zlib.crc32(plain) >> 24])
    written = bytearray()
    for byte in header + plain:
        mask = (keys[2] | 2) & 0xFFFF
        written.append(byte ^ ((mask * (mask ^ 1)) >> 8) & 0xFF)
        update(byte)
    return bytes(written)


@pytest.fixture
def archive(tmp_path):
    """Writes an encrypted archive of one stored file, as GPQA's, and gives the path."""

    def write(content: bytes, member="gpqa_diamond.json", password=PASSWORD):
        info = zipfile.ZipInfo(member)
        path = tmp_path / "gpqa.zip"
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(info, encrypted(content, password.encode()))
        raw = bytearray(path.read_bytes())
        # Mark the member as encrypted and give the plain text's checksum and size, in its own and the central header.
        for start, flags, checksum, size in ((0, 6, 14, 22), (raw.index(b"PK\x01\x02"), 8, 16, 24)):
            raw[start + flags] |= 1
            raw[start + checksum : start + checksum + 4] = zlib.crc32(content).to_bytes(4, "little")
            raw[start + size : start + size + 4] = len(content).to_bytes(4, "little")
        path.write_bytes(raw)
        return str(path)

    return write


def choices(**options):
    return gpqa.ChoiceQuestion("gpqa-000", "Which?", "Which?", choices=("right", "x", "y", "z"), **options)


def listed(prompt: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-D])\) (.*)$", prompt, re.MULTILINE))


def test_gpqa_rows_come_out_of_the_encrypted_archive(archive):
    path = archive(json.dumps([CHOICE, CHOICE | {"Subdomain": ""}]).encode())
    assert b"pear" not in Path(path).read_bytes()
    before = set(Path(path).parent.iterdir())
    loaded = gpqa.load(path, PASSWORD, seed=3)
    assert set(Path(path).parent.iterdir()) == before  # nothing is unpacked to the disk
    first, second = loaded
    assert (first.id, first.request) == ("gpqa-000", "Which is a pear?")
    assert first.choices == ("The pear", "a stone", "a cloud", "a shoe") and first.seed == 3
    assert first.groups == {"domain": "Fruit", "subdomain": "Pears"} and second.groups == {"domain": "Fruit"}
    shown = first.ask(0).prompt
    assert shown.startswith("Which is a pear?\n\nA) ") and shown.endswith(f"\n\n{CHOICE_LINE}")
    assert sorted(listed(shown).values()) == sorted(first.choices)


def test_a_wrong_password_is_told(archive):
    path = archive(json.dumps([CHOICE]).encode())
    # A wrong password passes the one-byte check once in 256 times and then fails otherwise: both are told.
    messages = set()
    for number in range(600):
        with pytest.raises(DataError) as caught:
            gpqa.load(path, f"wrong {number}")
        messages.add(str(caught.value))
    assert len(messages) == 2
    assert all("password" in message and path in message and "\n" not in message for message in messages)


@pytest.mark.parametrize(
    ("content", "member", "message"),
    [
        (b"[]", "a.json", "must hold a list of questions"),
        (b"{}", "a.json", "must hold a list of questions"),
        (b"[", "a.json", "is not an archive with one JSON file"),
        (b"[]", "a.txt", "is not an archive with one JSON file"),
        (json.dumps(["text"]).encode(), "a.json", "row 0: field Question is absent or blank"),
        (
            json.dumps([CHOICE, CHOICE | {"Incorrect Answer 2": " "}]).encode(),
            "a.json",
            "row 1: field Incorrect Answer 2",
        ),
        (json.dumps([CHOICE | {"Correct Answer": 4}]).encode(), "a.json", "row 0: field Correct Answer"),
    ],
)
def test_an_archive_of_other_content_is_named(content, member, message, archive):
    path = archive(content, member)
    with pytest.raises(DataError, match=message) as caught:
        gpqa.load(path, PASSWORD)
    assert path in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_archive_is_named(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"a\.zip: is not an archive"):
        gpqa.load(str(tmp_path / "a.zip"))


@given(seed=st.integers(0, 2**31), repeat=st.integers(0, 10_000))
def test_choices_are_permuted_and_the_letter_points_at_the_right_one(seed, repeat):
    question = choices(seed=seed)
    order = question.order(repeat)
    assert sorted(order) == [0, 1, 2, 3]
    asked = question.ask(repeat)
    assert [*listed(asked.prompt)] == ["A", "B", "C", "D"]
    assert [*listed(asked.prompt).values()] == [question.choices[i] for i in order]
    assert listed(asked.prompt)[asked.target] == "right"
    assert question.ask(repeat) == choices(seed=seed).ask(repeat)


def test_the_order_depends_on_seed_question_and_repeat():
    question, other = choices(), gpqa.ChoiceQuestion("gpqa-001", "", "", choices=("right", "x", "y", "z"))
    orders = [question.order(repeat) for repeat in range(50)]
    assert [other.order(repeat) for repeat in range(50)] != orders
    assert [choices(seed=1).order(repeat) for repeat in range(50)] != orders
    # 600 draws of 24 orders: each is due 25 times, with a deviation of 4.9.
    drawn = Counter(tuple(question.order(repeat)) for repeat in range(600))
    assert len(drawn) == 24 and min(drawn.values()) >= 8 and max(drawn.values()) <= 45


def test_repeats_vote_for_the_choice_and_not_for_the_letter():
    question = choices()
    for repeat in range(20):
        asked = question.ask(repeat)
        for letter, text in listed(asked.prompt).items():
            assert question.choices[int(question.vote(repeat, letter))] == text
        assert question.vote(repeat, asked.target) == "0"
        assert {question.vote(repeat, text) for text in ("", "E", "a", "AB", "ABCD")} == {""}


def test_gpqa_has_198_questions_with_four_choices(data_root, monkeypatch):
    monkeypatch.setenv("LRM_SAFETY_DATA", str(data_root))
    loaded = gpqa.load()
    # Counts only: no question may show in a message of this test.
    wrong = [row.id for row in loaded if len(row.choices) != 4 or not all(row.choices)]
    assert len(loaded) == 198 and wrong == []
    assert sorted({row.groups["domain"] for row in loaded}) == ["Biology", "Chemistry", "Physics"]
    letters = Counter()
    for repeat in range(64):
        asked = [row.ask(repeat) for row in loaded]
        pointing = [f"\n{one.target}) {row.choices[0]}\n" in one.prompt for row, one in zip(loaded, asked, strict=True)]
        assert all(pointing)
        letters.update(one.target for one in asked)
    # 12,672 draws: each letter is due 3,168 times, with a deviation of 49.
    assert sorted(letters) == ["A", "B", "C", "D"]
    assert all(abs(count - 3168) < 200 for count in letters.values())


def test_the_fingerprint_of_gpqa_depends_on_the_seed(data_root, monkeypatch):
    monkeypatch.setenv("LRM_SAFETY_DATA", str(data_root))
    assert gpqa.load().fingerprint == gpqa.load().fingerprint != gpqa.load(seed=1).fingerprint


def test_the_published_archive_with_a_wrong_password(data_root):
    with pytest.raises(DataError, match=r"gpqa_diamond\.zip: .*password"):
        gpqa.load(str(data_root / "gpqa" / "gpqa_diamond.zip"), "wrong")


# --- a user's own set

GRADER = """
NUMBER = 3
def grade(row, trace, answer, finished):
    return float(finished and answer == row["expected"])
"""


@pytest.fixture
def grader(tmp_path, monkeypatch):
    """A module with a grader that can be imported."""
    (tmp_path / "a_users_graders.py").write_text(GRADER)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "a_users_graders:grade"
    sys.modules.pop("a_users_graders", None)


ROWS = [
    {"id": "x", "question": "Two?", "expected": "2", "kind": "even", "category": ["a", "b"]},
    {"id": "y", "question": "Three?", "expected": "3", "kind": "odd"},
    {"id": "z", "question": "Five?", "expected": "5", "kind": "odd"},
]


def test_a_users_rows_reach_the_users_grader(save, grader):
    loaded = custom.load(save(ROWS), grader)
    assert [(row.id, row.prompt, row.request) for row in loaded] == [
        ("x", "Two?", "Two?"),
        ("y", "Three?", "Three?"),
        ("z", "Five?", "Five?"),
    ]
    first = loaded.rows[0]
    assert first.row == ROWS[0]
    grades = [
        first.grader(first.row, "", answer, finished) for answer, finished in (("2", True), ("2", False), ("3", True))
    ]
    assert grades == [1.0, 0.0, 0.0]
    assert len({*loaded}) == 3  # questions are hashed, their rows are not


def test_a_users_rows_are_chosen_by_their_fields(save, grader):
    path = save(ROWS)
    assert [row.id for row in custom.load(path, grader, {"kind": "odd"})] == ["y", "z"]
    assert [row.id for row in custom.load(path, grader, {"kind": "odd", "expected": "5"})] == ["z"]
    assert [row.id for row in custom.load(path, grader, {})] == ["x", "y", "z"]
    for where in ({"kind": "prime"}, {"size": "odd"}):
        with pytest.raises(ConfigError, match=r"^where=.*: no row of .*a\.jsonl matches"):
            custom.load(path, grader, where)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a_users_graders", "must be package.module:function"),
        ("a_users_graders:none", "cannot be imported"),
        ("a_users_graders:", "cannot be imported"),
        (":grade", "cannot be imported"),
        (".a_users_graders:grade", "cannot be imported"),
        ("no_such_module:grade", "cannot be imported"),
        ("a_users_graders:NUMBER", "is not a function"),
    ],
)
def test_a_wrong_grader_is_named(path, message, save, grader):
    with pytest.raises(ConfigError, match=rf"^grader={re.escape(path)}: {message}") as caught:
        custom.load(save(ROWS), path)
    assert "\n" not in str(caught.value)


def test_a_users_file_that_is_absent_or_wrong_is_named(save, grader, tmp_path):
    with pytest.raises(ConfigError, match=r"^path=.*none\.jsonl: no such file"):
        custom.load(str(tmp_path / "none.jsonl"), grader)
    with pytest.raises(DataError, match=r"a\.jsonl, row 1: no field 'question'"):
        custom.load(save([{"id": "x"}]), grader)
    with pytest.raises(DataError, match=r"row 2: field 'id' repeats 'x'"):
        custom.load(save([ROWS[0], ROWS[0]]), grader)


# --- the miniature world


def test_the_miniature_sets_are_the_held_out_prompts_by_kind(repository_root):
    path = repository_root / "lrm_safety" / "miniature" / "assets" / "prompts" / "held_out.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    loaded = {kind: miniature.load(kind) for kind in ("forbidden", "arithmetic", "benign")}
    for kind, found in loaded.items():
        expected = [(row["id"], row["question"]) for row in rows if row["kind"] == kind]
        assert [(row.id, row.prompt) for row in found] == expected and len(found) > 0
        assert all(row.row["kind"] == kind and row.grader is not None for row in found)
    assert sum(map(len, loaded.values())) == len(rows)
    assert all(row.groups == {"category": row.row["category"][0]} for row in loaded["forbidden"])


def test_the_miniature_world_grades_its_own_sums():
    question = miniature.load("arithmetic").rows[0]
    expected = question.row["expected"]
    assert question.grader(question.row, "", f"It is {expected}.", True) == 1.0
    assert question.grader(question.row, "", f"It is {int(expected) + 1}.", True) == 0.0
    assert question.grader(question.row, "", f"It is {expected}.", False) == 0.0


def test_another_kind_is_told():
    with pytest.raises(ConfigError, match=r"^kind=odd: must be one of forbidden, arithmetic, benign$"):
        miniature.load("odd")
