"""The verb `sweep`: what it asks for, where the runs go, and what is refused before any of them."""

import pytest

from disendiff_lite.cli import sweep as module
from disendiff_lite.cli.options import main
from disendiff_lite.evaluate.sweep import METHOD_CHANGES, Cell


@pytest.fixture
def asked(monkeypatch):
    """What run_sweep was called with; each cell but the first ends well."""
    calls = {}

    def run_sweep(cells, settings, out, *, jobs, backend, progress):
        calls.update(cells=cells, settings=settings, out=out, jobs=jobs, backend=backend)
        for done, cell in enumerate(cells, start=1):
            progress(cell, "RuntimeError: no memory" if calls.get("fail") and done == 1 else None, done, len(cells))
        return {cells[0]: "RuntimeError: no memory"} if calls.get("fail") else {}

    monkeypatch.setattr(module, "run_sweep", run_sweep)
    return calls


def test_pairs_methods_and_seeds_make_cells(asked, tmp_path, capsys):
    command = ["sweep", "--pairs", "cat_dog, dog_pig", "--methods", "disendiff", "--seeds", "0,3", "--jobs", "2"]
    assert main([*command, "--set", "steps=7", "--count", "5", "--out", str(tmp_path)]) == 0
    assert asked["cells"][0] == Cell("cat_dog", "disendiff", 0) and len(asked["cells"]) == 4
    assert asked["settings"].changes == {"steps": 7} and asked["settings"].count == 5
    assert (asked["jobs"], asked["backend"], asked["out"]) == (2, "loky", tmp_path)
    assert capsys.readouterr().out.strip() == str(tmp_path / "measures.csv")


def test_all_is_all(asked):
    assert main(["sweep", "--methods", "all", "--seeds", "0"]) == 0
    assert len(asked["cells"]) == 10 * len(METHOD_CHANGES)


def test_a_failed_run_is_named_and_the_status_says_so(asked, capsys):
    asked["fail"] = True
    assert main(["sweep", "--pairs", "cat_dog", "--seeds", "0"]) == 1
    said = capsys.readouterr().err
    assert "cat_dog disendiff 0 failed with RuntimeError: no memory" in said and "1 of 2 runs failed" in said


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--pairs", "cat"], "There is no reference picture 'cat'"),
        (["--methods", "disendif"], "There is no method 'disendif': did you mean 'disendiff'?"),
        (["--seeds", "0,x"], "The seeds '0,x' must be whole numbers"),
        (["--set", "stps=3"], "There is no setting 'stps': did you mean 'steps'?"),
        (["--address", "tcp://127.0.0.1:1"], "--address goes with a cluster"),
    ],
)
def test_what_cannot_work_is_refused_before_any_run(asked, capsys, options, sentence):
    assert main(["sweep", *options]) == 2
    assert sentence in capsys.readouterr().err and not asked
