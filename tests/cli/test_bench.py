"""The verb `bench`: the model that is asked for is measured, and the tables go where they are asked to."""

import json

import pytest

from disendiff_lite.cli import bench as module
from disendiff_lite.cli.options import main


@pytest.fixture
def tiny_model(new_tiny_pipe, monkeypatch):
    """load_pipeline gives the tiny pipeline, and says what it was asked for."""
    asked = []

    def load(name, device, dtype):
        asked.append((name, str(device), str(dtype)))
        return new_tiny_pipe().to(dtype)

    monkeypatch.setattr(module, "load_pipeline", load)
    return asked


def test_a_table_goes_into_a_folder_and_a_page(tiny_model, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("<!-- bench -->\n<!-- end of bench -->\nrest\n")
    command = ["bench", "--device", "cpu", "--steps", "1", "--batch", "1", "--what", "v", "--checkpointing"]
    command += ["--precision", "float32,bfloat16", "--out", str(tmp_path / "out"), "--readme", str(page)]
    assert main(command) == 0
    assert tiny_model == [("emoji", "cpu", "torch.float32"), ("emoji", "cpu", "torch.bfloat16")]
    said = capsys.readouterr().out
    assert "v trains, batch 1, 64 px, gradient checkpointing. On cpu" in said and said.count("latents kept") == 4
    kept = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert list(kept["costs"]) == ["float32", "bfloat16"] and len(kept["costs"]["float32"]["plain"]["seconds"]) == 1
    table = (tmp_path / "out" / "bench.md").read_text()
    assert table.count("\n| bfloat16 |") == 4 and table.strip() in page.read_text()
    assert page.read_text().endswith("<!-- end of bench -->\nrest\n")

    earlier = ["bench"] + 2 * ["--earlier", str(tmp_path / "out" / "bench.json")]
    assert main([*earlier, "--readme", str(page)]) == 0
    assert len(tiny_model) == 2 and page.read_text().count("\n| bfloat16 |") == 8  # nothing is measured again


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--precision", "float8"], "There is no precision 'float8': did you mean 'float"),
        (["--resolution", "72", "--what", "kv"], "has no grid of map_resolution 16: choose one of 18, 9"),
        (["--what", "keys"], "There is no trained 'keys'"),
        (["--earlier", "none.json"], "Cannot read none.json"),
        (["--device", "cuda:77"], "There is no device 'cuda:77'"),
    ],
)
def test_what_cannot_be_measured(tiny_model, arguments, words, capsys):
    assert main(["bench", "--steps", "1", *arguments]) == 2
    assert words in capsys.readouterr().err
