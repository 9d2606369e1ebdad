from __future__ import annotations

import io
import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelyard.errors import BadData, NoInput
from modelyard.yard import Yard
from modelyard_jobs import data
from tests.steps.fake import artifact


@pytest.fixture
def read(tmp_path):
    yard = Yard.open(tmp_path / "yard")
    return lambda files: dict(data.read(artifact(yard, "dataset", files), tmp_path / "cache"))


def jsonl(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def parquet(table, **options):
    buffer = io.BytesIO()
    pq.write_table(pa.table(table), buffer, **options)
    return buffer.getvalue()


ROW = {"text": "a", "label": 1}
CSV = "text,label\na,1\n"


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["reviews.csv"], {"train": 1}),
        (["a.csv", "b.csv"], {"train": 2}),
        (["train.csv", "test.csv", "README.md"], {"train": 1, "test": 1}),
        (["train.csv", "dev.csv"], {"train": 1, "validation": 1}),
        (["data/eval.csv", "data/train.csv"], {"train": 1, "validation": 1}),
        (["train/a.csv", "train/b.csv", "val/a.csv"], {"train": 2, "validation": 1}),
        (
            ["plain/train-00000-of-00002.csv", "plain/train-00001-of-00002.csv", "plain/unsupervised-00000-of-00001.csv"],
            {"train": 2, "unsupervised": 1},
        ),
        (["train.csv", "extra.csv"], {"train": 1}),
        (["my_test_rows.csv", "latest.csv"], {"test": 1}),
        (["train.csv", ".cache/test.csv", "_tmp/test.csv", "dataset_infos.json"], {"train": 1}),
    ],
)
def test_splits_by_name(read, files, splits):
    found = read({name: "junk {" if name.endswith((".json", ".md")) else CSV for name in files})
    assert {name: len(rows) for name, rows in found.items()} == splits
    assert list(found) == list(splits)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'text,label\n"a ""b"",\nc",1\nNA,0\n'),
        ("a.csv", '\ufefftext,label\r\n"a ""b"",\nc",1\r\nNA,0\r\n'),
        ("a.tsv", 'text\tlabel\n"a ""b"",\nc"\t1\nNA\t0\n'),
        ("a.jsonl", jsonl({"text": 'a "b",\nc', "label": 1}, {"text": "NA", "label": 0})),
        ("a.jsonl", "\ufeff" + jsonl({"text": 'a "b",\nc', "label": 1}, {"text": "NA", "label": 0})),
        ("a.json", json.dumps([{"text": 'a "b",\nc', "label": 1}, {"text": "NA", "label": 0}], indent=1)),
        ("a.parquet", parquet({"text": ['a "b",\nc', "NA"], "label": [1, 0]})),
    ],
)
def test_formats_give_the_same_rows(read, name, content):
    rows = read({name: content})["train"]
    assert rows["text"][:] == ['a "b",\nc', "NA"]
    assert rows["label"][:] == [1, 0]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.csv": ""}, "a.csv: the file has no rows"),
        ({"a.csv": "text,label\n"}, "a.csv: the file has no rows"),
        ({"a.csv": "text,label\na,1\nb,2,3\n"}, "Expected 2 fields in line 3, saw 3"),
        ({"a.csv": "text,label\na,1,9\nb,2,3\n"}, "a.csv: the rows have more fields than the header"),
        ({"a.csv": "text,label\na,1\nhé,1\n".encode("latin-1")}, "a.csv:3: the file cannot be read: byte 0xe9 is not UTF-8"),
        ({"a.jsonl": jsonl(ROW, ROW) + '{"text": "b" "label": 1}\n'}, "a.jsonl:3: the file cannot be read: the line is no JSON"),
        ({"a.jsonl": jsonl(ROW) + "[1]\n"}, "a.jsonl:2: the file cannot be read: the line is no JSON object"),
        ({"a.jsonl": jsonl(ROW).encode() + b'{"text":"h\xe9","label":1}\n'}, "a.jsonl:2: the file cannot be read: byte 0xe9 is not UTF-8"),
        ({"a.json": '[{"text": "a"},\n {"text": "b"},]'}, "a.json: the file cannot be read"),
        ({"a.jsonl": jsonl(ROW) + '{"text": "\\ud83d", "label": 1}\n'}, "a.jsonl:2: the file cannot be read: it has half a character, '\\ud83d'"),
        ({"a.parquet": parquet({"text": pa.array([], pa.string())})}, "a.parquet: the file has no rows"),
        ({"a.parquet": "PAR1 not really"}, "a.parquet: the file cannot be read"),
        ({"a.parquet": pickle.dumps(ROW)}, "a.parquet: the file cannot be read"),
        ({"test/a.jsonl": jsonl(ROW), "test/b.jsonl": jsonl({"txt": "b", "label": 1})}, "test/b.jsonl: files of split test differ in their columns"),
        ({"test/a.jsonl": jsonl(ROW), "test/b.jsonl": jsonl({"text": "b", "label": "x"})}, "files of split test differ in the types"),
    ],
)
def test_bad_files_are_named_with_their_line(read, files, message):
    with pytest.raises(BadData) as caught:
        read(files)
    assert message in str(caught.value)
    assert "/yard/" not in str(caught.value)


def test_only_the_split_that_is_asked_for_is_read(tmp_path):
    splits = data.read(artifact(Yard.open(tmp_path / "yard"), "dataset", {"test.csv": CSV, "train.csv": "broken"}), tmp_path / "cache")
    assert list(splits) == ["train", "test"]
    assert len(data.pick(splits, "test")[1]) == 1
    with pytest.raises(BadData):
        data.pick(splits, "train")


def test_no_rows_at_all(read):
    with pytest.raises(NoInput) as caught:
        read({"README.md": "hello"})
    assert "README.md" in str(caught.value)


def test_columns_in_another_order_and_empty_columns_take_their_types(read):
    rows = read({"train/a.jsonl": jsonl({"text": "a", "error": None}), "train/b.jsonl": jsonl({"error": {"what": "x"}, "text": "b"})})["train"]
    assert rows[:] == {"text": ["a", "b"], "error": [None, {"what": "x"}]}


def test_a_column_of_several_types_in_one_file_is_one_in_all(read):
    same = {"messages": [{"role": "user", "content": "a"}], "text": "a"}
    more = {"messages": [{"role": "user", "content": "b", "name": "ada"}, {"role": "assistant", "content": "c"}], "text": {"no": "text"}}
    rows = read({"train/a.jsonl": jsonl(same), "train/b.jsonl": jsonl(more, same), "train/c.jsonl": jsonl(same)})["train"]
    assert list(data.values(rows, "messages")) == [each["messages"] for each in (same, more, same, same)]
    assert list(data.values(rows, "text")) == ["a", {"no": "text"}, "a", "a"]


def test_pick_knows_synonyms_and_lists_what_is_there(read):
    splits = read({"train.csv": CSV, "dev.csv": CSV})
    assert data.pick(splits, "dev")[0] == data.pick(splits, "validation")[0] == "validation"
    with pytest.raises(NoInput, match="train, validation"):
        data.pick(splits, "test")


def test_no_row_moves_when_the_data_grow(read):
    texts = [f"row {number}" for number in range(2000)]
    small = read({"a.jsonl": jsonl(*({"text": text} for text in texts[:1000]))})["train"]
    # Grown in front as well, so that every row has another number.
    large = read({"a.jsonl": jsonl(*({"text": text} for text in reversed(texts)))})["train"]
    cut_of_small = {small[int(row)]["text"] for row in data.cut(small, "text", 0.1)[1]}
    rest, cut = data.cut(large, "text", 0.1)
    assert cut_of_small == {large[int(row)]["text"] for row in cut} & set(texts[:1000])
    assert sorted([*rest, *cut]) == list(range(2000))
    assert 150 < len(cut) < 250


@pytest.mark.parametrize(
    "new", [{"content": "x", "role": "user"}, {"role": "user", "content": "x", "name": "ada"}, {"role": "user", "content": "x", "weight": 1.5}]
)
def test_no_chat_moves_when_the_first_one_has_its_fields_in_another_order_or_more_of_them(read, new):
    chats = [{"messages": [{"role": "user", "content": f"row {number}"}]} for number in range(20)]
    small = read({"a.jsonl": jsonl(*chats)})["train"]
    for grown in ([{"messages": [new]}, *chats], [{"messages": [new, {"role": "tool", "content": "y", "id": 1}]}, *chats]):
        assert np.array_equal(data.keys(read({"a.jsonl": jsonl(*grown)})["train"], "messages")[1:], data.keys(small, "messages"))


def test_fields_that_a_table_adds_are_not_content(read):
    """Parquet has all fields in every object, most of them empty."""
    plain = {"messages": [[{"role": "user", "content": "x"}], [{"role": "user", "content": "y"}]]}
    full = {"messages": [[{"name": None, "role": "user", "content": "x"}], [{"name": "ada", "role": "user", "content": "y"}]]}
    one, other = (data.keys(read({"a.parquet": parquet(rows)})["train"], "messages") for rows in (plain, full))
    assert (one == other).tolist() == [True, False]


def test_duplicates_fall_on_the_same_side(read):
    rows = read({"a.jsonl": jsonl(*({"text": f"row {number % 50}", "label": number} for number in range(500)))})["train"]
    rest, cut = data.cut(rows, "text", 0.3)
    assert not {rows[int(row)]["text"] for row in rest} & {rows[int(row)]["text"] for row in cut}
    assert len(cut)


def test_cut_of_selected_rows_is_that_of_their_content(read):
    rows = read({"a.jsonl": jsonl(*({"text": f"row {number}"} for number in range(3000)))})["train"]
    picked = rows.select(range(2999, 0, -3))
    assert np.array_equal(data.keys(picked, "text"), data.keys(rows, "text")[2999:0:-3])


def test_sample():
    drawn = data.sample(200, 25000, 42)
    assert len(set(drawn.tolist())) == 200
    assert list(drawn) == sorted(drawn)
    assert 5000 < drawn.mean() < 20000
    assert np.array_equal(drawn, data.sample(200, 25000, 42))
    assert not np.array_equal(drawn, data.sample(200, 25000, 43))
    assert data.sample(None, 5, 1).tolist() == data.sample(9, 5, 1).tolist() == [0, 1, 2, 3, 4]


def test_overlap_counts_rows_of_the_second(read):
    splits = read(
        {"train.jsonl": jsonl({"text": "a"}, {"text": "b"}, {"text": "b"}), "test.jsonl": jsonl({"text": "b"}, {"text": "b"}, {"text": "B"})}
    )
    assert data.overlap(splits["train"], splits["test"], "text") == 2
