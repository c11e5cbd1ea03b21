"""Claims: verdicts follow the numbers, and what was not measured gets none."""

import numpy as np
import pytest

from disendiff_lite.evaluate.claims import (
    CLAIMS,
    Claim,
    Comparison,
    claims_table,
    examine,
    main,
    method_table,
    read_measures,
)
from disendiff_lite.evaluate.sweep import METHOD_CHANGES
from disendiff_lite.support.errors import UserError


def made_up(centres, measure="x", noise=0.01, pairs=6, seeds=2):
    rng = np.random.default_rng(0)
    return {
        method: {measure: {f"pair{p}": {s: centre + noise * rng.normal() for s in range(seeds)} for p in range(pairs)}}
        for method, centre in centres.items()
    }


@pytest.mark.parametrize(
    ("centres", "level", "verdict"),
    [
        ({"a": 0.5, "b": 0.4}, False, "holds"),
        ({"a": 0.4, "b": 0.5}, False, "fails"),
        ({"a": 0.5, "b": 0.5}, False, "cannot be told"),
        ({"a": 0.5, "b": 0.5}, True, "holds"),
        ({"a": 0.5, "b": 0.4}, True, "fails"),
    ],
)
def test_a_verdict_follows_the_numbers(centres, level, verdict):
    claim = Claim("C", "a is more", (Comparison("x", "a", "b", level),))
    assert examine(claim, made_up(centres)).verdict == verdict


def test_all_comparisons_must_hold_and_one_can_fail_a_claim():
    table = made_up({"a": 0.5, "b": 0.4, "c": 0.6, "d": 0.5})

    def outcome(*smaller):
        return examine(Claim("C", "", tuple(Comparison("x", "a", other) for other in smaller)), table).verdict

    assert outcome("b") == "holds" and outcome("b", "c") == "fails" and outcome("b", "d") == "cannot be told"
    assert outcome("c", "d") == "fails"


def test_what_was_not_measured_has_no_verdict():
    table = made_up({"a": 0.5})
    assert examine(Claim("C", "", (Comparison("x", "a", "b"),)), table) is None
    assert examine(Claim("C", "", (Comparison("y", "a", "a"),)), table) is None


def test_the_papers_claims_speak_of_methods_that_a_sweep_has():
    methods = {name for claim in CLAIMS for one in claim.comparisons for name in (one.larger, one.smaller)}
    assert methods <= set(METHOD_CHANGES)
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)


def test_the_command_prints_means_and_verdicts(tmp_path, monkeypatch, capsys):
    lines = ["pair,method,seed,measure,mean,spread,n"]
    for pair in "abcd":
        for method, value in {"disendiff": 0.1, "custom_diffusion": 0.4}.items():
            lines += [f"{pair},{method},{seed},co-occurrence,{value + 0.01 * seed},0.1,20" for seed in (0, 1)]
    (tmp_path / "measures.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr("sys.argv", ["claims", str(tmp_path / "measures.csv")])
    main()
    printed = capsys.readouterr().out
    assert "0.405 (0.400 to 0.410)" in printed
    assert "F1     holds" in printed and "co-occurrence: custom_diffusion minus disendiff +0.300" in printed
    assert "Comparisons: 1," in printed and "C1" not in printed


def test_a_table_shows_what_is_there():
    table = made_up({"a": 0.5, "b": 0.4})
    rows = method_table(table, ["x", "y"])
    assert rows[0] == ["method", "runs", "x", "y"] and [row[0] for row in rows[1:]] == ["a", "b"]
    assert rows[1][1] == "12" and rows[1][2].startswith("0.5") and rows[1][3] == "-"
    claim = Claim("C", "a is more", (Comparison("x", "a", "b"),))
    assert claims_table([examine(claim, table)])[1] == ["C", "holds", "a is more"]


@pytest.mark.parametrize("text", ["", "pair,method\n", "pair,method,seed,measure,mean\na,b,c,d,e\n"])
def test_a_file_that_is_no_table_is_refused(tmp_path, text):
    (tmp_path / "measures.csv").write_text(text)
    with pytest.raises(UserError, match="measures"):
        read_measures(tmp_path / "measures.csv")
