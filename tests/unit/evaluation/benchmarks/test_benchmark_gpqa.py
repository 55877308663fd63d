"""GPQA: the encrypted archive, and choices that move from repeat to repeat."""

import json
import math
import struct
import zipfile
import zlib
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrm_safety.errors import DataError
from lrm_safety.evaluation.benchmarks.gpqa import ChoiceQuestion, load

PASSWORD = "a-password-of-the-test"
ROWS = [
    {
        "Question": f" How many legs has animal {i}?\n",
        "Correct Answer": f"{i} legs",
        "Incorrect Answer 1": "none",
        "Incorrect Answer 2": "one, in winter ",
        "Incorrect Answer 3": "a hundred",
        "High-level domain": "Biology",
        "Subdomain": "Legs",
    }
    for i in range(3, 7)
]
INSTRUCTION = "Please reason step by step, and put the letter of your final answer within \\boxed{}."


class ZipCipher:
    """Traditional PKWARE encryption (APPNOTE 6.1), which the standard library reads but does not write."""

    def __init__(self, password):
        self.keys = [0x12345678, 0x23456789, 0x34567890]
        for byte in password.encode():
            self._update(byte)

    def _update(self, byte):
        def crc(value, byte):
            return zlib.crc32(bytes([byte]), value ^ 0xFFFFFFFF) ^ 0xFFFFFFFF

        self.keys[0] = crc(self.keys[0], byte)
        self.keys[1] = ((self.keys[1] + (self.keys[0] & 0xFF)) * 134775813 + 1) & 0xFFFFFFFF
        self.keys[2] = crc(self.keys[2], self.keys[1] >> 24)

    def encrypt(self, plain):
        out = bytearray()
        for byte in plain:
            word = (self.keys[2] | 2) & 0xFFFF
            out.append(byte ^ ((word * (word ^ 1)) >> 8 & 0xFF))
            self._update(byte)
        return bytes(out)


def write_encrypted(path, content, password=PASSWORD, name="gpqa_diamond.json"):
    """An archive with one encrypted, deflated member, as the published one is."""
    checksum = zlib.crc32(content)
    deflater = zlib.compressobj(wbits=-15)
    packed = deflater.compress(content) + deflater.flush()
    body = ZipCipher(password).encrypt(bytes(11) + bytes([checksum >> 24]) + packed)
    common = struct.pack("<HHHHHIIIHH", 20, 1, 8, 0, 0x21, checksum, len(body), len(content), len(name), 0)
    local = b"PK\x03\x04" + common + name.encode() + body
    central = b"PK\x01\x02" + struct.pack("<H", 20) + common + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name.encode()
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)
    path.write_bytes(local + central + end)
    return str(path)


@pytest.fixture
def archive(tmp_path):
    return write_encrypted(tmp_path / "gpqa_diamond.zip", json.dumps(ROWS).encode())


def listed(prompt):
    """Choices by letter, read off a prompt."""
    head, letters, instruction = prompt.rsplit("\n\n", 2)
    assert instruction == INSTRUCTION
    choices = dict(line.split(") ", 1) for line in letters.split("\n"))
    assert list(choices) == ["A", "B", "C", "D"]
    return head, choices


def test_an_archive_is_read(archive, tmp_path):
    found = load(archive, PASSWORD)
    assert [row.id for row in found] == ["gpqa-000", "gpqa-001", "gpqa-002", "gpqa-003"] and str(
        found.source
    ) == archive
    first = found.rows[0]
    assert first.request == "How many legs has animal 3?" and first.groups == {"domain": "Biology", "subdomain": "Legs"}
    assert first.choices == ("3 legs", "none", "one, in winter", "a hundred")
    head, choices = listed(first.ask(0).prompt)
    assert head == first.request and set(choices.values()) == set(first.choices)
    assert [path.name for path in tmp_path.iterdir()] == ["gpqa_diamond.zip"]  # nothing is unpacked on disk


def test_domains_are_optional(tmp_path):
    bare = [{name: value for name, value in ROWS[0].items() if "omain" not in name}]
    (question,) = load(write_encrypted(tmp_path / "g.zip", json.dumps(bare).encode()), PASSWORD)
    assert question.groups == {}


def test_a_wrong_password_is_one_line(archive):
    # The archive's own check lets one of 256 wrong passwords through; those must end in the same class of error.
    for wrong in ("deserted-untie-orchid", "", *(f"guess-{i}" for i in range(600))):
        with pytest.raises(DataError) as caught:
            load(archive, wrong)
        message = str(caught.value)
        assert message.startswith(archive) and "password" in message and "\n" not in message
        assert "legs" not in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[", "is not an archive with one JSON file, or the password is wrong"),
        (b"\xff\xfe", "is not an archive with one JSON file"),
        (b"{}", "must hold a list of questions"),
        (b"[]", "must hold a list of questions"),
        (b"[3]", "row 1: field Question is absent or blank"),
        (
            json.dumps([ROWS[0], ROWS[1] | {"Incorrect Answer 3": " "}]).encode(),
            "row 2: field Incorrect Answer 3 is absent or blank",
        ),
        (
            json.dumps([ROWS[0] | {"Correct Answer": 4}]).encode(),
            "row 1: field Correct Answer is absent or blank",
        ),
    ],
)
def test_wrong_content_is_named(content, said, tmp_path):
    path = write_encrypted(tmp_path / "g.zip", content)
    with pytest.raises(DataError) as caught:
        load(path, PASSWORD)
    message = str(caught.value)
    assert message.startswith(path) and said in message and "\n" not in message and "legs" not in message


def test_what_is_no_such_archive_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.zip: no such file"):
        load(str(tmp_path / "none.zip"))
    path = tmp_path / "a.zip"
    path.write_bytes(b"no archive at all")
    with pytest.raises(DataError, match=r"a\.zip: is not an archive with one JSON file"):
        load(str(path))
    for names in (["a.txt"], ["a.json", "b.json"]):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, "[]")
        with pytest.raises(DataError, match=r"a\.zip: is not an archive with one JSON file"):
            load(str(path))


def test_a_torn_archive_is_named(archive, tmp_path):
    torn = bytearray((tmp_path / "gpqa_diamond.zip").read_bytes())
    torn[90:95] = b"\x00\x01\x02\x03\x04"
    (tmp_path / "gpqa_diamond.zip").write_bytes(bytes(torn))
    with pytest.raises(DataError, match=r"gpqa_diamond\.zip: "):
        load(archive, PASSWORD)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(-(2**40), 2**40), repeat=st.integers(0, 10**6), name=st.text(max_size=10))
def test_every_order_is_a_permutation_and_its_letter_is_right(seed, repeat, name):
    question = ChoiceQuestion(id=name, prompt="q", request="q", choices=("right", "x", "y", "z"), seed=seed)
    assert sorted(question.order(repeat)) == [0, 1, 2, 3]
    asked = question.ask(repeat)
    _, choices = listed(asked.prompt)
    assert choices[asked.target] == "right" and sorted(choices.values()) == ["right", "x", "y", "z"]
    assert question.ask(repeat) == asked
    # Every letter votes for the text that stands behind it: position 0 is the right one.
    assert {question.choices[int(question.vote(repeat, letter))]: text for letter, text in choices.items()} == {
        text: text for text in question.choices
    }
    assert question.vote(repeat, asked.target) == "0"


@pytest.mark.parametrize("extracted", ["", "E", "AB", "ABCD", "a", "1"])
def test_what_is_no_letter_votes_for_nothing(extracted):
    question = ChoiceQuestion(id="q", prompt="q", request="q", choices=("r", "x", "y", "z"))
    assert question.vote(0, extracted) == ""


def test_order_moves_with_seed_question_and_repeat():
    def orders(**changes):
        given = {"id": "q", "seed": 0} | changes
        question = ChoiceQuestion(prompt="q", request="q", choices=("r", "x", "y", "z"), **given)
        return [question.order(repeat) for repeat in range(40)]

    base = orders()
    assert base == orders() and len({tuple(order) for order in base}) > 12  # 40 draws of 24 permutations
    assert base != orders(seed=1) and base != orders(id="p")
    # No repeat of one seed is a shift of another's.
    assert base[1:] != orders(seed=1)[:-1]


def test_the_right_letter_and_every_permutation_are_uniform():
    question = ChoiceQuestion(id="q", prompt="q", request="q", choices=("r", "x", "y", "z"), seed=3)
    number = 12_000
    drawn = Counter(tuple(question.order(repeat)) for repeat in range(number))
    expected = number / 24
    chi_square = sum((drawn[order] - expected) ** 2 / expected for order in drawn)
    assert len(drawn) == 24 and chi_square < 57  # 0.9999 quantile at 23 degrees of freedom: 56.5
    letters = Counter(question.ask(repeat).target for repeat in range(number))
    deviation = math.sqrt(number * 0.25 * 0.75)
    assert set(letters) == set("ABCD") and all(abs(count - number / 4) < 4.5 * deviation for count in letters.values())


@pytest.mark.usefixtures("data_root")
def test_the_real_set_is_what_its_card_says():
    found = load()
    assert len(found) == 198 and Counter(row.groups["domain"] for row in found) == {
        "Chemistry": 93,
        "Physics": 86,
        "Biology": 19,
    }
    for row in found:
        for repeat in range(4):
            asked = row.ask(repeat)
            # Choices may hold blank lines, so the right one is looked for with its letter.
            assert f"\n{asked.target}) {row.choices[0]}" in asked.prompt
            assert asked.prompt.startswith(row.request + "\n\nA) ") and asked.prompt.endswith(INSTRUCTION)
    letters = Counter(row.ask(repeat).target for row in found for repeat in range(64))
    total = 198 * 64
    deviation = math.sqrt(total * 0.25 * 0.75)
    assert all(abs(letters[letter] - total / 4) < 4.5 * deviation for letter in "ABCD")
    assert load(seed=1).fingerprint != found.fingerprint == load(seed=0).fingerprint


@pytest.mark.usefixtures("data_root")
def test_the_real_archive_does_not_open_with_another_password():
    with pytest.raises(DataError, match="password"):
        load(password="another")
