"""The index page: numbers from the runs' metrics, their mean and spread, and small embedded pictures."""

import base64
import io

import nbformat
import pytest
from PIL import Image

from disendiff_lite.report.index_page import HEIGHT, numbers, read_row, write_index
from disendiff_lite.report.metrics import record_metrics

PICTURE = Image.new("RGB", (64, 64), "teal")


def scores(image, text, margin=None):
    values = {"image_alignment": image, "text_alignment": text} | ({} if margin is None else {"margin": margin})
    return {name: {"mean": value, "spread": 0.1, "n": 4} for name, value in values.items()}


def metrics(shift):
    subjects = {"combined": scores(0.5, 0.25), "cat": scores(0.4, 0.3, -0.1), "dog": scores(0.6 + shift, 0.1, 0.3)}
    maps = {"before": {"IoU": 0.5, "peak on the thing": 0.75}, "after": {"IoU": 0.625, "peak on the thing": 1.0}}
    return {"scores": subjects, "maps": maps}


def figure(size):
    file = io.BytesIO()
    Image.new("RGB", size).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture
def row_of(tmp_path):
    def make(pair, state, shift=0.0, reason=""):
        folder = tmp_path / pair
        folder.mkdir()
        (folder / "report.html").touch()
        record_metrics(folder, "quickstart", metrics(shift))
        record_metrics(folder, "report", {"seconds": 100 + 100 * shift})
        outputs = [nbformat.v4.new_output("display_data", data={"image/png": figure((900, 600))})]
        cell = nbformat.v4.new_code_cell("", id="maps-after", outputs=outputs)
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), folder / "any.ipynb")
        return read_row(pair, state, reason, PICTURE, folder)

    return make


def test_numbers_are_means_over_the_concepts():
    found = numbers({"quickstart": metrics(0.0)})
    assert found["both together", "image"] == 0.5 and found["both together", "text"] == 0.25
    assert found["each alone", "image"] == pytest.approx(0.5) and found["each alone", "own − other"] == pytest.approx(
        0.1
    )
    assert (found["maps", "IoU before"], found["maps", "IoU after"], found["maps", "peak after"]) == (0.5, 0.625, 1.0)
    assert numbers({}) == {} and numbers({"quickstart": {"maps": {}}}) == {}


def test_the_table(tmp_path, row_of):
    rows = [row_of("one", "finished"), row_of("two", "kept", 0.4), row_of("three", "failed", 9.0, "<In [3]> failed")]
    write_index(tmp_path / "index.html", "All", rows, {"commit": "abc"})
    html = (tmp_path / "index.html").read_text()
    assert "3 pairs: 1 finished, 1 finished before, 1 failed." in html and "&lt;In [3]&gt; failed" in html
    assert 'href="one/report.html"' in html and 'src="http' not in html
    foot = html[html.index("<tfoot>") :]
    assert foot.count("over 2 pairs") == 2
    assert (
        ">0.60<" in foot and ">0.14<" in foot
    )  # mean and standard deviation of 0.5 and 0.7, without the failed one's number
    assert ">2:00<" in foot and ">0.00<" in foot
    assert html.count('alt="maps before and after training (') == 2 and "drawn" not in html


def test_pictures_are_small(row_of):
    row = row_of("one", "finished")
    picture = Image.open(io.BytesIO(base64.b64decode(row.figures["maps-after"].partition("base64,")[2])))
    assert picture.height == HEIGHT


def test_one_pair_has_no_spread(tmp_path, row_of):
    write_index(tmp_path / "index.html", "One", [row_of("one", "finished")], {})
    html = (tmp_path / "index.html").read_text()
    assert "<tfoot>" not in html and 'content="finished"' in html
