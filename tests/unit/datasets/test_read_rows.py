"""Files as users give them: what is read, and the one line about what is not."""

import csv
import json
import threading

import pytest

from lrm_safety.datasets.files import check_text, read_rows, read_value
from lrm_safety.errors import DataError

ROWS = [{"text": 'quoted "one"', "n": "1"}, {"text": "two,\nlines\u2028and more", "n": "2"}]
MARK = b"\xef\xbb\xbf"


def refused(path):
    with pytest.raises(DataError) as caught:
        read_rows(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message


def csv_of(rows, ends="\r\n", comma=","):
    lines = [["text", "n"], *([row["text"], row["n"]] for row in rows)]
    return ends.join(comma.join('"' + cell.replace('"', '""') + '"' for cell in line) for line in lines) + ends


@pytest.mark.parametrize("mark", [b"", MARK])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "A.CSV", "a.tsv", "gaps.jsonl"])
def test_every_format_gives_the_same_rows(name, ends, mark, tmp_path):
    lines = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    text = {
        "a.jsonl": ends.join(lines),
        "gaps.jsonl": ends.join(["", "", lines[0], " ", lines[1], ""]),
        "a.json": "[" + f",{ends}".join(lines) + "]",
        "a.tsv": csv_of(ROWS, ends, comma="\t"),
    }.get(name, csv_of(ROWS, ends))
    path = tmp_path / name
    path.write_bytes(mark + text.encode())
    assert read_rows(path) == ROWS


def test_a_cell_may_be_of_any_length_and_the_process_keeps_its_limit(tmp_path):
    path = tmp_path / "long.csv"
    path.write_text("text\n" + "a" * 200_000 + "\n")
    before = csv.field_size_limit()
    found = []
    threads = [threading.Thread(target=lambda: found.append(read_rows(path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(rows[0]["text"]) for rows in found] == [200_000] * 4
    assert csv.field_size_limit() == before


def test_short_rows_and_empty_columns_of_a_table(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,n,,\na,1,,\nb\n\n")
    assert [(row["text"], row["n"]) for row in read_rows(path)] == [("a", "1"), ("b", None)]
    path.write_text("")
    assert read_rows(path) == []


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"text": "a"}\n\n{"text": \n', ", line 3: not valid JSON (Expecting value, column"),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": \n', "is the file cut off?"),
        ("a.json", b'[{"text": "a"},\n{"te', ", line 2: not valid JSON (Unterminated string"),
        ("a.json", b'[{"text": "a"},]', "a comma stands before the closing bracket"),
        ("a.jsonl", b"{'text': 'a'}", "is this Python's notation?"),
        ("a.jsonl", b'{"text": "a"} {"text": "b"}', ", line 1: not valid JSON (Extra data"),
        ("a.json", b'{"text": "a"}\n{"text": "b"}\n', ": holds JSON lines, one object a line; name the file .jsonl"),
        ("a.jsonl", b'[{"text": "a"}]', ": holds one JSON list, not one object a line; name the file .json"),
        ("a.jsonl", b'[\n{"text": "a"}\n]', ": holds one JSON value over several lines; name the file .json"),
        ("a.json", b'{"text": "a"}', ": holds a JSON dict, expected a list of objects"),
        ("a.json", b'["a"]', ", row 1: is a JSON str, expected an object"),
        ("a.jsonl", b'\n{"text": "a"}\n\nnull\n', ", row 2: is null, expected an object"),
        ("a.jsonl", b'{"text": "a", "text": "b"}', ", line 1: not JSON that can be read (the name 'text' occurs twice"),
        ("a.json", b'[{"a": {"b": 1, "b": 2}}]', "the name 'b' occurs twice"),
        ("a.csv", b"text,n,text\na,1,b\n", ": the header names the column 'text' twice"),
        ("a.csv", b"id;text\n1;a\n", ": its columns are parted by semicolons; save it with commas"),
        ("a.csv", b'text\n"cut off', ": not valid CSV (unexpected end of data)"),
        ("a.csv", b"id,text\n1,a, b\n", ", row 1: more columns than the header names; quote the field with commas"),
        ("a.tsv", b"id\ttext\n1\ta\tb\n", ", row 1: more columns than the header names; quote the field with tabs"),
        ("a.jsonl", '{"text": "é"}'.encode("latin-1"), ", line 1: not UTF-8 at byte 10"),
        ("a.csv", "text\né\n".encode("latin-1"), ", line 2: not UTF-8 at byte 5"),
        ("a.csv", "text\na\n".encode("utf-16"), ": is UTF-16 text: save it as UTF-8"),
        ("a.csv", "text\na\n".encode("utf-16-le"), ", line 1: holds a zero byte; save it as UTF-8"),
        ("a.jsonl", b"\x1f\x8b\x08\x00", ": is compressed by gzip: unpack it"),
        ("a.json", b"PK\x03\x04", ": is a zip archive or a spreadsheet"),
        ("a.jsonl", b"PAR1", ": is a Parquet file"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid x", ": is a pointer of Git LFS"),
        ("a.json", b"\n<!doctype HTML><html>", ": is a web page and not the data"),
        ("a.jsonl.gz", b"", ": unknown format '.gz'"),
        ("a.parquet", b"", ": unknown format '.parquet'"),
        ("a", b"", ": unknown format ''"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line_with_its_place(name, content, said, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert said in refused(tmp_path / name)


def test_absent_files_and_folders_name_the_key(tmp_path):
    with pytest.raises(DataError, match=r"none\.json: no such file; set data\.path to a \.json"):
        read_rows(tmp_path / "none.json", "data.path")
    with pytest.raises(DataError, match=r": a folder; set data\.path to"):
        read_rows(tmp_path, "data.path")


@pytest.mark.parametrize("field", ["[" * 100_000 + "]" * 100_000, "9" * 5000, '{"a":' * 50_000 + "1" + "}" * 50_000])
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_whatever_the_parser_stumbles_over_is_one_line(field, suffix, tmp_path):
    path = tmp_path / f"odd{suffix}"
    row = '{"id": "0", "question": "a", "x": ' + field + "}"
    path.write_text(f"[{row}]" if suffix == ".json" else f'{{"question": "b"}}\n{row}\n')
    message = refused(path)
    assert "not JSON that can be read" in message and (", line 2" in message) is (suffix == ".jsonl")
    with pytest.raises(DataError, match=r"not JSON that can be read|not valid JSON"):
        read_value(path)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            r'{"question": "spin \ud83d now"}',
            ", row 2, field 'question': character 6 is half of a surrogate pair (\\ud83d)",
        ),
        (r'{"question": "a", "x": ["b", {"c": "\udc00"}]}', ", row 2, field 'x': character 1 is half"),
        (r'{"\ud83d": "a"}', ", row 2: character 1 is half of a surrogate pair"),
    ],
)
def test_half_a_surrogate_pair_is_named_with_row_and_field(row, said, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "whole \\ud83d\\ude00"}\n\n' + row + "\n")
    assert said in refused(path)


def test_whole_characters_beyond_the_basic_plane_pass(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('["\\ud83d\\ude00"]')
    assert read_value(path) == ["\N{GRINNING FACE}"]
    assert check_text({"a": ["b", 1, None, b"\xed\xa0\xbd"]}, "row") == {"a": ["b", 1, None, b"\xed\xa0\xbd"]}
