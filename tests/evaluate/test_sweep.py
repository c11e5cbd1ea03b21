"""The sweep: each cell is one run, none is made twice, one that fails stops no other, and a cluster gives the same."""

import csv
import dataclasses
import json

import pytest
import torch

from disendiff_lite.evaluate import sweep
from disendiff_lite.evaluate.sweep import METHOD_CHANGES, Cell, SweepSettings, plan, run_cell, run_sweep
from disendiff_lite.runs.references import load_reference, pair_names
from disendiff_lite.support.errors import UserError

QUICK = {"steps": 1, "prior_images": 2, "prior_batch": 2, "inference_steps": 1, "batch_size": 1}


@pytest.fixture(scope="module")
def settings(new_tiny_pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "model"
    new_tiny_pipe().save_pretrained(folder)
    return SweepSettings(str(folder), QUICK, count=2, noises=1, plain=1)


@pytest.fixture(scope="module")
def swept(settings, tmp_path_factory):
    """A sweep of four cells in processes of their own, and what was said of them."""
    out, said = tmp_path_factory.mktemp("swept"), []
    cells = plan(["cat_dog", "man_woman"], ["disendiff", "custom_diffusion"], [0])
    failures = run_sweep(cells, settings, out, jobs=2, progress=lambda *news: said.append(news))
    assert failures == {}
    return out, cells, said


def test_a_plan_goes_seed_by_seed():
    cells = plan(["cat_dog", "dog_pig"], ["disendiff", "without_bind"], [0, 1, 0])
    assert [cell.seed for cell in cells] == [0] * 4 + [1] * 4
    assert cells[1] == Cell("cat_dog", "without_bind", 0)
    for wrong in ((["cat"], ["disendiff"], [0]), (["cat_dog"], ["disendif"], [0]), (["cat_dog"], ["disendiff"], [])):
        with pytest.raises(UserError):
            plan(*wrong)
    assert len(pair_names()) == 10 and not {"cat_dog_bird", "dog_dog"} & set(pair_names())


def test_methods_are_settings():
    configs = {method: SweepSettings().config(Cell("cat_dog", method, 3)) for method in METHOD_CHANGES}
    assert all(config.seed == 3 for config in configs.values())
    assert configs["custom_diffusion"].method == "custom_diffusion" and not configs["custom_diffusion"].calibrates
    assert configs["without_bind"].bind_weight == 0 and configs["without_bind"].separate_weight == 1
    assert len({json.dumps(config.to_dict()) for config in configs.values()}) == len(configs)


@pytest.mark.slow
def test_each_cell_is_measured_once(swept, settings, monkeypatch):
    out, cells, said = swept
    assert sorted(cell for cell, *_ in said) == sorted(cells)
    assert [news[1:] for news in said] == [(None, done, 4) for done in range(1, 5)]
    before = {cell: cell.file(out).stat().st_mtime_ns for cell in cells}
    monkeypatch.setattr(sweep, "run_cell", None)  # calling it would fail
    assert run_sweep(cells, settings, out, jobs=1) == {}
    assert {cell: cell.file(out).stat().st_mtime_ns for cell in cells} == before


@pytest.mark.slow
def test_a_cell_made_again_is_the_same(swept, settings, tmp_path):
    out, cells, _ = swept
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a cell has: sums over several threads differ in their last bits
    again = run_cell(cells[0], settings, tmp_path)
    torch.set_num_threads(threads)
    held = json.loads(cells[0].file(out).read_text())["measures"]
    assert held.keys() == again.keys()
    for name, numbers in again.items():
        assert held[name]["n"] == numbers["n"] and held[name]["mean"] == pytest.approx(numbers["mean"], abs=1e-4), name


@pytest.mark.slow
def test_the_table_has_a_row_a_run_and_measure(swept):
    out, cells, _ = swept
    with open(out / "measures.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["pair"], row["method"]) for row in rows} == {(cell.pair, cell.method) for cell in cells}
    measures = {row["measure"] for row in rows}
    assert {"co-occurrence", "omission", "mix-up", "own looks, concept 2", "bind", "modifier on other"} <= measures
    assert {"image-alignment, concept 2", "text-alignment, mean", "language drift"} <= measures
    assert all(0 <= float(row["mean"]) <= 1 for row in rows if row["measure"].startswith("co-occurrence"))
    assert len(rows) == len(cells) * len(measures)


@pytest.mark.slow
def test_other_settings_are_refused_before_anything_runs(swept, settings):
    out, cells, said = swept
    other = SweepSettings(settings.model, settings.changes, count=3, noises=1, plain=1)
    with pytest.raises(UserError, match="was made with another count: choose another folder"):
        run_sweep(cells, other, out, jobs=1)
    cells[0].file(out).with_suffix(".broken").touch()
    with pytest.raises(UserError, match="There is no method"):
        run_sweep([Cell("cat_dog", "disendif", 0)], settings, out, jobs=1)


def test_a_cell_that_fails_stops_no_other(settings, tmp_path, monkeypatch):
    def run(cell, *_):
        if cell.pair == "cat_dog":
            raise RuntimeError("no\nmemory")
        return {"bind": {"mean": 1.0, "spread": float("nan"), "n": 1}}

    monkeypatch.setattr(sweep, "run_cell", run)
    cells = plan(["cat_dog", "dog_pig"], ["disendiff"], [0])
    failures = run_sweep(cells, settings, tmp_path, jobs=1)
    assert failures == {cells[0]: "RuntimeError: no"}
    assert not cells[0].file(tmp_path).exists() and cells[1].file(tmp_path).exists()
    assert (tmp_path / "measures.csv").read_text().splitlines()[1] == "dog_pig,disendiff,0,bind,1,nan,1"


def test_a_sweep_of_before_a_setting_existed_goes_on(settings, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(sweep, "run_cell", lambda cell, *_: made.append(cell) or {})
    cells = plan(["cat_dog"], ["disendiff"], [0])
    run_sweep(cells, settings, tmp_path, jobs=1)
    held = json.loads(cells[0].file(tmp_path).read_text())
    del held["config"]["precision"]
    cells[0].file(tmp_path).write_text(json.dumps(held))
    assert run_sweep(cells, settings, tmp_path, jobs=1) == {} and len(made) == 1
    held["config"]["precision"] = "bfloat16"
    cells[0].file(tmp_path).write_text(json.dumps(held))
    with pytest.raises(UserError, match="was made with another config"):
        run_sweep(cells, settings, tmp_path, jobs=1)


@pytest.mark.slow
def test_three_concepts_and_two_of_one_class_are_swept_too(settings, tmp_path):
    trio, dogs = (
        set(run_cell(cell, settings, tmp_path)) for cell in plan(["cat_dog_bird", "dog_dog"], ["disendiff"], [0])
    )
    assert {"success", "success, two of three", "recognised, concept 3", "image-alignment, concept 3"} <= trio
    assert {"image-alignment, combined", "image-alignment, cat and bird", "modifier on other"} <= trio
    assert {"recognised", "own looks, concept 2", "image-alignment, concept 2", "modifier on other"} <= dogs
    assert not {"co-occurrence", "omission", "success", "mix-up"} & dogs


@pytest.mark.slow
def test_a_photograph_is_swept_without_the_judge(settings, tmp_path, monkeypatch):
    photograph = dataclasses.replace(load_reference("cat_dog"), name="paper/cat_dog", masks=None)
    monkeypatch.setattr(sweep, "load_reference", lambda name: photograph)
    cells = plan(["paper/cat_dog"], ["disendiff"], [0])
    assert run_sweep(cells, settings, tmp_path, jobs=1, backend="sequential") == {}
    rows = (tmp_path / "measures.csv").read_text().splitlines()[1:]
    assert {row.split(",")[0] for row in rows} == {"paper/cat_dog"}
    assert any("image-alignment" in row for row in rows) and not any("success" in row for row in rows)


@pytest.mark.slow
def test_pictures_of_another_size_than_the_judges_are_swept_without_it(settings, tmp_path):
    larger = dataclasses.replace(settings, changes={**QUICK, "resolution": 128})
    (cell,) = plan(["cat_dog"], ["custom_diffusion"], [0])
    measures = run_cell(cell, larger, tmp_path)
    assert "image-alignment, combined" in measures and not {"success", "recognised"} & set(measures)


@pytest.mark.slow
def test_a_cluster_of_two_workers_makes_the_same(swept, settings, tmp_path):
    distributed = pytest.importorskip("distributed")
    out, cells, _ = swept
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster),
    ):
        assert run_sweep(cells[:2], settings, tmp_path, jobs=2, backend="dask") == {}
    for cell in cells[:2]:
        here, there = (json.loads(cell.file(folder).read_text())["measures"] for folder in (out, tmp_path))
        assert {name: here[name]["mean"] for name in here} == pytest.approx(
            {name: there[name]["mean"] for name in there}, abs=1e-4
        )
