"""The page of a sweep: every number in it comes from the table, and another page keeps all but the lines between."""

import numpy as np
import pytest
from PIL import Image

from disendiff_lite.evaluate.claims import read_measures
from disendiff_lite.show import results


@pytest.fixture
def swept(tmp_path):
    """The folder of a sweep of two methods on four pairs with two seeds, by made-up numbers."""
    lines = ["pair,method,seed,measure,mean,spread,n"]
    for number, pair in enumerate("abcd"):
        for method, value in {"disendiff": 0.1, "custom_diffusion": 0.4}.items():
            for measure in ("co-occurrence", "image-alignment, combined"):
                lines += [f'{pair},{method},{seed},"{measure}",{value + 0.01 * number},0.1,20' for seed in (0, 1)]
    (tmp_path / "measures.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["results", *map(str, arguments)])
    results.main()


def test_the_page_has_tables_figures_and_verdicts(swept, monkeypatch):
    run(monkeypatch, swept)
    text = (swept / "README.md").read_text()
    assert "4 pairs, seeds 0, 1, 2 methods" in text
    assert "| disendiff | 8 |" in text and "0.415 (0.4" in text
    assert "| F1 | Custom Diffusion draws the other thing unasked" in text
    assert "co-occurrence: custom_diffusion - disendiff +0.300 (+0.300 to +0.300) | holds |" in text
    assert "Not measured: C1, C2, C3" in text
    for name in (results.MEANS, results.DIFFERENCES):
        assert f"]({name})" in text and np.asarray(Image.open(swept / name).convert("L")).std() > 5


def test_a_readme_keeps_all_but_the_lines_between(swept, tmp_path, monkeypatch):
    readme = tmp_path / "page.md"
    readme.write_text("first\n\n<!-- results -->\nold\n<!-- end of results -->\n\nlast\n")
    run(monkeypatch, swept, "--readme", readme)
    once = readme.read_text()
    assert once.startswith("first\n") and once.endswith("\nlast\n") and "old" not in once
    assert "| custom_diffusion | 8 | " in once
    run(monkeypatch, swept, "--readme", readme)
    assert readme.read_text() == once


def test_differences_are_paired(swept):
    table = read_measures(swept / "measures.csv")
    found = results.difference_intervals(table, ["co-occurrence", "mix-up"])
    assert list(found["co-occurrence"]) == ["custom_diffusion"] and found["mix-up"] == {}
    assert found["co-occurrence"]["custom_diffusion"].mean == pytest.approx(0.3)


def test_the_head_says_how_many_pairs_each_seed_has():
    def measured(first, second):
        pairs = {f"pair{n}": {seed: 0.5 for seed, count in enumerate((first, second)) if n < count} for n in range(10)}
        return {"mix-up": pairs}

    table = {"disendiff": measured(10, 6), "custom_diffusion": measured(10, 6)}
    assert results.extent(table) == "10 pairs with seed 0, 6 with seed 1"
    table["dreambooth"] = measured(10, 5)
    said = "10 pairs with seed 0, 6 with seed 1 (dreambooth 10 with seed 0, 5 with seed 1)"
    assert results.extent(table) == said and results.page(table, {}).startswith(f"# Results\n\n{said}, 3 methods.")
    assert results.extent({"disendiff": measured(10, 10)}) == "10 pairs, seeds 0, 1"
