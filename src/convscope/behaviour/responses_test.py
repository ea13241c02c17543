from __future__ import annotations

import io
import math
from pathlib import Path

import pytest

from convscope.behaviour.responses import COLUMNS, Response, Writer, read_responses, write_responses
from convscope.errors import OptionError

HEAD = ",".join(COLUMNS)
ROW = Response("ann", 1, 2, 0.731, "dog", "cat", "0", "0001_cat.png")


def table(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "answers.csv"
    path.write_text("\n".join([HEAD, *lines]) + "\n")
    return path


def test_a_row_as_the_published_tables_have_it(tmp_path: Path) -> None:
    path = tmp_path / "ann.csv"
    path.write_text(
        '"subj","session","trial","rt","object_response","category","condition","imagename"\n'
        '"ann",1,2,0.731,"dog","cat","0","0001_cat.png"\n"ann",1,3,NaN,"na","cat","0","0002_cat.png"\n'
    )
    first, second = read_responses(path).rows
    assert first == ROW
    assert (second.object_response, second.correct, math.isnan(second.rt)) == ("na", False, True)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    rows = [ROW, Response("bob, jr", 2, 1, math.nan, "cat", "cat", 'as "shown"', "b.png")]
    write_responses(rows, tmp_path / "a.csv")
    found = read_responses(tmp_path / "a.csv")
    assert found.rows[0] == rows[0]
    assert repr(found.rows[1]) == repr(rows[1])
    assert found.notes == []


def test_each_answer_is_in_the_file_at_once() -> None:
    file = io.StringIO()
    writer = Writer(file)
    writer.add(ROW)
    assert file.getvalue().splitlines() == [HEAD, "ann,1,2,0.731,dog,cat,0,0001_cat.png"]


def test_malformed_rows_are_counted_named_and_skipped(tmp_path: Path) -> None:
    good = "ann,1,{n},0.5,dog,cat,0,{n}.png"
    path = table(
        tmp_path, good.format(n=1), "ann,1,2,0.5,dog,cat,0", "ann,one,3,0.5,dog,cat,0,3.png", "",
        "ann,1,4,soon,dog,cat,0,4.png", "ann,1,5,-1,dog,cat,0,5.png", ",1,6,0.5,dog,cat,0,6.png",
        "ann,1,7,0.5,dog,cat,0,1.png", good.format(n=8), "ann,1,9,0.5,,cat,0,9.png",
    )  # fmt: skip
    found = read_responses(path)
    assert [row.trial for row in found.rows] == [1, 8]
    assert [(row.line, row.reason) for row in found.skipped] == [
        (3, "7 cells under 8 columns"), (4, "session 'one' is no whole number"), (6, "rt 'soon' is no time in seconds"),
        (7, "rt '-1' is no time in seconds"), (8, "no subj"), (9, "a second answer of ann to 1.png"),
        (11, "no object_response"),
    ]  # fmt: skip
    assert found.notes == [
        "7 of 9 rows were skipped: line 3 (7 cells under 8 columns), line 4 (session 'one' is no whole number), "
        "line 6 (rt 'soon' is no time in seconds) and 4 more; mend them or leave them out"
    ]


def test_a_file_without_a_column_or_a_row_gets_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("subj,trial,rt,category,condition,imagename\n")
    with pytest.raises(OptionError, match="lacks the column session, object_response; its first line must name subj"):
        read_responses(tmp_path / "a.csv")
    with pytest.raises(
        OptionError, match=r"holds no answer that can be read: 1 of 1 rows was skipped: line 2 \(2 cells"
    ):
        read_responses(table(tmp_path, "ann,1"))
    with pytest.raises(OptionError, match="No such file"):
        read_responses(tmp_path / "none.csv")
