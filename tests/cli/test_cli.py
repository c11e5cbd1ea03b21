"""The command line: each verb does its work, and every bad input ends with one sentence and a non-zero status."""

import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from disendiff_lite.cli import commands
from disendiff_lite.cli.options import main
from disendiff_lite.evaluate.clip import Scorer
from disendiff_lite.report.report import Report
from disendiff_lite.runs import train as train_module
from disendiff_lite.runs.folder import RunRecord, picture_hash, read_losses, read_run
from disendiff_lite.runs.generate import reference_requests
from disendiff_lite.runs.references import known_reference, load_reference
from disendiff_lite.support import files
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.lock import sole_writer
from tests.report.test_report import write_notebook

pytestmark = pytest.mark.slow  # they start commands, kernels and environments of their own

QUICK = ["batch_size=1", "prior_images=2", "inference_steps=1", "checkpoint_every=2"]


@pytest.fixture(scope="module")
def model(new_tiny_pipe, tmp_path_factory):
    """The folder of a tiny model."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    new_tiny_pipe().save_pretrained(folder)
    return folder


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "my picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def trained(model, tmp_path_factory):
    """The folder of a finished run on the pair cat_dog."""
    folder = tmp_path_factory.mktemp("runs") / "cat_dog"
    command = ["train", "--pair", "cat_dog", "--model", str(model), "--device", "cpu", "--run-dir", str(folder)]
    assert main([*command, *settings(*QUICK, "steps=2")]) == 0
    return folder


def settings(*pairs):
    return [part for pair in pairs for part in ("--set", pair)]


def refused(capsys, *arguments, status=2):
    """Run a command line that must fail; returns what it said, which must be one line that begins with the verb."""
    assert main([str(argument) for argument in arguments]) == status
    printed = capsys.readouterr()
    said = printed.err.strip().splitlines()[-1]
    assert "Traceback" not in printed.err and said.startswith(f"{arguments[0]}: ") and printed.out == ""
    return said


# Good input


def test_training_a_picture_of_ones_own(model, picture, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["train", "--image", picture.name, "--classes", "cat, dog", "--model", str(model), "--device", "cpu"]
    command += ["--method", "custom_diffusion", "--seed", "3", *settings(*QUICK, "steps=2", "augment=no")]
    assert main(command) == 0
    printed = capsys.readouterr()
    run = tmp_path / "runs" / "my-picture-custom_diffusion"
    assert printed.out.strip() == "runs/my-picture-custom_diffusion" and read_run(run).finished
    assert "training 2/2, loss" in printed.err and 'drawing pictures of "a cat and a dog" 2/2' in printed.err
    config = json.loads((run / "config.json").read_text())
    assert (config["seed"], config["preset"], config["augment"]) == (3, "emoji", False)
    assert main(command) == 0  # once more: it is finished, and nothing is done anew
    assert "nothing to do" in capsys.readouterr().err


def test_results_that_were_not_written_before(model, tmp_path, monkeypatch, capsys):
    command = ["train", "--pair", "cat_dog", "--model", str(model), "--device", "cpu", "--method", "textual_inversion"]
    command += ["--run-dir", str(tmp_path / "run"), *settings("batch_size=1", "steps=1")]

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "save_learned", interrupt)
        assert main(command) == 130
    for said in ("all steps were done before: the results are written now", "nothing to do: this run is finished"):
        capsys.readouterr()
        assert main(command) == 0
        assert capsys.readouterr().err.strip() == said


def test_pictures_of_a_run(trained, tmp_path, capsys):
    out = tmp_path / "out"
    prompt = "photo of a <new1> cat on the beach"
    command = ["generate", str(trained), prompt, "a <new2> dog", "--count", "2", "--seed", "5", "--out", str(out)]
    assert main([*command, *settings("inference_steps=1")]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    names = sorted(path.name for path in out.iterdir())
    assert (
        names[2:] == [f"photo-of-a-new1-cat-on-the-beach-seed5-{number:02}.png" for number in (0, 1)]
        and len(names) == 4
    )
    assert Image.open(out / names[2]).text["prompt"] == prompt
    assert main(["generate", str(trained), "--count", "1", *settings("inference_steps=1")]) == 0
    assert len(list((trained / "generated").glob("*.png"))) == 12  # both, each alone, and three contexts of the three


def test_the_set_of_a_run_has_its_own_caption(trained, tmp_path, capsys):
    run = shutil.copytree(trained, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"template": "a picture of my {}"}))
    out = tmp_path / "out"
    assert main(["generate", str(run), "--count", "1", "--out", str(out), *settings("inference_steps=1")]) == 0
    assert (out / "a-picture-of-my-new2-dog-seed0-00.png").exists() and not list(out.glob("photo-of-a-new2-dog-seed*"))


def test_pictures_never_take_each_others_place(trained, tmp_path, capsys):
    out = tmp_path / "out"

    def draw(*arguments):
        capsys.readouterr()
        command = ["generate", str(trained), *arguments, "--out", str(out), *settings("inference_steps=1")]
        assert main(command) == 0
        return {path: path.read_bytes() for path in out.iterdir()}

    first = draw("a <new1> cat", "a <new1> cat!", "A <new1> cat", "a <new1> cat", "--count", "2")
    said = capsys.readouterr().err.splitlines()
    assert len(first) == 6 and said[-1] == "4 of 6 pictures have longer names: other pictures have the short ones"
    assert "drawing 6/6" in said[-2]
    again = draw("a <new1> cat!", "--count", "1")
    pixels = [np.stack([np.asarray(Image.open(io.BytesIO(found[path]))) for path in first]) for found in (first, again)]
    # The same picture is written anew; in a smaller batch it may round to another level.
    assert again.keys() == first.keys() and np.abs(pixels[0].astype(int) - pixels[1]).max() <= 1
    first = again
    others = ["--seed=4"], settings("guidance_scale=8"), ["--negative-prompt", "a dog"], ["--negative-prompt", "a pig"]
    for number, options in enumerate(others, start=7):
        found = draw("a <new1> cat", "--count", "1", *options)
        assert len(found) == number and first.items() <= found.items() and "longer" not in capsys.readouterr().err
    assert {"a-new1-cat-seed0-guidance_scale8-00.png", "a-new1-cat-without-a-dog-seed0-00.png"} < {
        path.name for path in found
    }
    assert Image.open(out / "a-new1-cat-without-a-dog-seed0-00.png").info["prompt"] == "a <new1> cat"


def test_what_cannot_be_drawn_or_kept_is_seen_before_the_work(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("disendiff_lite.cli.generate.draw_pictures", None)  # calling it would raise
    (tmp_path / "file").write_text("")
    command = ["generate", trained, "a <new1> cat", "--out"]
    assert "choose another folder with --out" in refused(capsys, *command, tmp_path / "file")
    out = tmp_path / "out"
    negative = [*command, out, "--negative-prompt"]
    assert "The model does not know <new9>" in refused(capsys, *negative, "a <new9> dog")
    assert "without guidance" in refused(capsys, *negative, "a dog", *settings("guidance_scale=1"))
    assert not out.exists()
    with pytest.raises(SystemExit) as end:
        main(["generate", str(trained), "a \udcff cat"])
    assert end.value.code == 2 and "holds bytes that are no letters" in capsys.readouterr().err


@pytest.fixture
def asked(monkeypatch):
    """The scorers that were asked for; what answers is a scorer that compares mean colours."""

    class Mean(torch.nn.Module):
        def encode_image(self, pixels):
            return pixels

        encode_text = encode_image

    scorer = Scorer(
        "means",
        Mean(),
        lambda picture: torch.from_numpy(np.asarray(picture, dtype=np.float32)).mean(dim=(0, 1)),
        lambda texts: torch.tensor([[1.0, len(text), 0.0] for text in texts]),
        torch.device("cpu"),
    )
    names = []
    monkeypatch.setattr(commands, "load_scorer", lambda name, device: names.append(name) or scorer)
    return names


def test_scores_of_a_run(trained, asked, monkeypatch, capsys):
    command = ["score", str(trained), "--count", "1", *settings("inference_steps=1")]
    assert main(command) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table] == [
        "image-alignment",
        "combined",
        "cat",
        "dog",
        str(trained / "scores.json"),
    ]
    found = json.loads((trained / "scores.json").read_text())
    assert asked == ["emoji"] and found["scorer"] == "means" and found["crops"] is True
    assert found["subjects"]["cat"]["image_alignment"]["n"] == 10 and "margin" in found["subjects"]["dog"]
    assert found["subjects"]["cat"]["prompts"][1] == "photo of a <new1> cat on the beach"
    assert "margin" not in found["subjects"]["combined"]

    monkeypatch.setattr(commands, "known_reference", lambda record: None)  # as with a picture of one's own
    assert main([*command, "--scorer", "other"]) == 0
    assert "give --crops" in capsys.readouterr().err and asked[-1] == "other"
    assert "one picture of each" in refused(capsys, *command, "--crops", trained / "reference.png")


def test_scores_that_cannot_be_saved_are_shown(trained, asked, tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise UserError("Cannot write scores.json (Read-only file system): free some space.")

    monkeypatch.setattr("disendiff_lite.cli.results.write_text", refuse)
    run = shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("scores*"))
    assert main(["score", str(run), "--count", "1", *settings("inference_steps=1")]) == 2
    shown = capsys.readouterr()
    assert [line.split()[0] for line in shown.out.splitlines()] == ["image-alignment", "combined", "cat", "dog"]
    assert shown.err.splitlines()[-1].startswith("score: Cannot write scores.json")


def test_scores_with_other_settings_are_kept_and_crops_have_any_name(trained, asked, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("scores*"))
    references = []
    monkeypatch.setattr(commands, "score_run", lambda *given, **_: references.append(given[2]) or [])
    monkeypatch.setattr(commands, "known_reference", lambda record: None)
    monkeypatch.setattr(commands, "score_table", lambda scores: "table")
    plain, comma = tmp_path / "a.png", tmp_path / "b, c.png"
    for path in (plain, comma):
        Image.new("RGB", (64, 64)).save(path)
    for crops in (
        [f"--crops={plain},{plain}"],
        [f"--crops={comma}", f"--crops={plain}"],
        [f'--crops="{comma}",{plain}'],
    ):
        assert main(["score", str(run), *crops]) == 0 and len(references[-1].crops) == 2
    capsys.readouterr()
    assert "There are 3 crops" in refused(capsys, "score", run, *crops, "--crops", plain)
    assert "There is no picture" in refused(capsys, "score", run, f"--crops={plain},{tmp_path / 'none.png'}")
    assert main(["score", str(run), *crops, "--seed", "7"]) == 0
    kept = run / "scores-1.json"
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"with other settings, are now in {kept}")
    assert [json.loads(path.read_text())["seed"] for path in (kept, run / "scores.json")] == [0, 7]


def test_a_run_knows_its_reference():
    reference = load_reference("dog_pig")
    record = RunRecord(reference.classes, ("<new1>", "<new2>"), "", picture_hash(reference.picture), None, {})
    assert known_reference(record).name == "dog_pig"
    assert known_reference(dataclasses.replace(record, classes=("pig", "dog"))) is None  # its prompts would not fit
    requests = reference_requests(reference, record)
    assert len(requests) == 30 and requests[20].prompt == "photo of a <new2> pig" and requests[20].concepts == (1,)


def test_a_report(tmp_path, capsys, picture):
    """Paths given on the command line reach the notebook in a form that holds there."""
    notebook = write_notebook(tmp_path / "small.ipynb", "print(pair, steps, image, classes)")
    command = ["report", "--image", str(picture), "--classes", "cat,dog", "--notebooks", str(notebook)]
    command += ["--run-dir", str(tmp_path / "run")]
    assert main([*command, *settings("steps=4")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"cat_dog 4 {picture} cat,dog",
        str(tmp_path / "run" / "report.html"),
    ]
    page, metrics = (tmp_path / "run" / name for name in ("report.html", "metrics.json"))
    footer = page.read_text().split("<footer>")[1]
    assert "my picture.png" in footer and str(tmp_path) not in footer
    assert json.loads(metrics.read_text())["report"]["settings"]["image"] == "my picture.png"
    for bad, sentence in [
        ("stpes=4", "There is no parameter 'stpes': did you mean 'steps'?"),
        ("steps=x", "steps must be a whole number, not 'x'."),
        ("seed=1", "seed is given twice"),
    ]:
        assert sentence in refused(capsys, *command, "--seed", 2, *settings(bad))


def test_a_report_whose_cell_fails(tmp_path, capsys):
    notebook = write_notebook(
        tmp_path / "bad.ipynb",
        "## Here",
        "from disendiff_lite.support.errors import UserError\nraise UserError('Mend it.')",
    )
    command = ["report", "--pair", "cat_dog", "--notebooks", str(notebook), "--run-dir", str(tmp_path / "run")]
    assert main(command) == 1
    printed = capsys.readouterr()
    assert "report: The notebook bad failed in cell In [3] under 'Here' with UserError: Mend it." in printed.err
    assert printed.out.strip() == str(tmp_path / "run" / "report.html") and "Traceback" not in printed.err


def test_a_report_lies_where_the_run_of_its_method_lies(trained, tmp_path, monkeypatch, capsys):
    """In the folder that `train` takes; where another run is, no kernel is started."""
    notebook, made = write_notebook(tmp_path / "small.ipynb"), []

    def make_report(parameters, run_dir, notebooks, title):
        made.append((run_dir, title))
        return Report(run_dir / "report.html", ())

    monkeypatch.setattr("disendiff_lite.report.report.make_report", make_report)
    command = ["report", "--pair", "cat_dog", "--notebooks", str(notebook)]
    for options in ([], ["--method", "dreambooth"], settings("method=dreambooth"), ["--run-dir", str(trained)]):
        assert main([*command, *options]) == 0
    other = Path("runs", "cat_dog-dreambooth")
    assert made == [
        (Path("runs", "cat_dog"), "cat_dog"),
        (other, other.name),
        (other, other.name),
        (trained, "cat_dog"),
    ]
    capsys.readouterr()
    for options, sentence in [
        (
            ["--method", "dreambooth"],
            "holds another run, with method 'disendiff' instead of 'dreambooth': choose another folder",
        ),
        (["--seed", 7], "with seed 0 instead of 7"),
        (settings("steps=3"), "with steps 2 instead of 3"),
        (["--pair", "dog_pig"], "with another picture, classes ('cat', 'dog') instead of ('dog', 'pig')"),
    ]:
        assert sentence in refused(capsys, *command, "--run-dir", trained, *options)
    assert "There is no method 'magic'" in refused(capsys, *command, "--method", "magic")
    assert "must be less than 2**32" in refused(capsys, *command, "--seed", 2**32)
    assert len(made) == 4


def test_a_run_under_way_is_left_alone(model, tmp_path, capsys):
    run = tmp_path / "run"
    options = ["--pair", "cat_dog", "--run-dir", run]
    record = json.dumps({"classes": [], "modifiers": [], "prompt": "", "picture": "", "prior": None, "model": {}})
    with sole_writer(run, "run"):
        (run / "run.json").write_text(record)
        train = ["train", *options, "--model", model, *settings(*QUICK, "steps=2")]
        for command in (train, [*train, "--seed", 5], ["report", *options]):
            assert f"Another run is writing to {run}: wait until it ends" in refused(capsys, *command)
        assert sorted(path.name for path in run.iterdir()) == [".run.lock", "run.json"]
        all_pairs = ["report", "--all-pairs", "--run-dir", tmp_path]
    with sole_writer(tmp_path / "dog_pig", "report"):
        assert f"Another report is writing to {tmp_path / 'dog_pig'}" in refused(capsys, *all_pairs)
        assert "Another report is writing" in refused(
            capsys, "report", "--pair=dog_pig", all_pairs[-2], tmp_path / "dog_pig"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["run"] and (run / "run.json").read_text() == record


# Bad input


@pytest.mark.parametrize("verb", [[], ["train"], ["generate"], ["score"], ["report"]])
def test_help_says_what_a_verb_takes(verb, capsys):
    with pytest.raises(SystemExit) as end:
        main([*verb, "--help"])
    assert end.value.code == 0 and "usage:" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["trian"],
        ["train"],
        ["train", "--pair", "cat_dog", "--image", "x.png"],
        ["train", "--pair", "cat_dog", "--sed", "1"],
        ["train", "--pair", "cat_dog", "--seed", "one"],
        ["generate"],
        ["generate", "x", "--count", "0"],
    ],
)
def test_a_command_that_cannot_be_read(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2 and "error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--pair", "cat_dig"], "no reference picture 'cat_dig': choose one of"),
        (["--pair", "cat_dog", "--classes", "cat,dog"], "a shipped pair has its classes"),
        (["--image", "missing.png", "--classes", "cat,dog"], "There is no picture missing.png"),
        (["--image", "unreadable.png", "--classes", "cat,dog"], "Cannot read unreadable.png as a picture"),
        (["--image", "dot.png", "--classes", "cat,dog"], "dot.png is 1x1 px"),
        (["--image", "fine.png"], "needs --classes"),
        (["--image", "fine.png", "--classes", "cat,,dog"], "A class name is missing"),
        (["--image", "fine.png", "--classes", "cat,dog,cow,pig"], "4 classes (cat, dog, cow, pig) but 3 modifiers"),
    ],
)
@pytest.mark.parametrize("verb", ["train", "report"])
def test_a_source_that_does_not_work(verb, arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "unreadable.png").write_bytes(b"not a picture")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "fine.png")
    assert sentence in refused(capsys, verb, *arguments)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (settings("stps=3"), "There is no setting 'stps': did you mean 'steps'?"),
        (settings("steps=-3"), "steps is -3: it must be a finite number that is not negative."),
        (settings("steps=3.5"), "steps must be a whole number, not '3.5'."),
        (settings("augment=maybe"), "augment must be true or false, not 'maybe'."),
        (settings("steps"), "Cannot read the setting 'steps': write it as name=value"),
        (settings("steps=1", "steps=2"), "steps is given twice"),
        (settings("method=dreambooth"), "give it as --method"),
        (settings("modifiers=<new1>,<new1>"), "not all different"),
        (["--method", "magic"], "There is no method 'magic': use one of disendiff"),
        (["--preset", "huge"], "There is no preset 'huge': use one of paper, emoji."),
        (["--model", "no/such/model"], "There is no model no/such/model"),
        (["--device", "abacus"], "There is no device 'abacus'"),
        (["--seed", "4294967296"], "seed is 4294967296: it must be less than 2**32"),
    ],
)
def test_settings_that_do_not_work(arguments, sentence, capsys, tmp_path):
    assert sentence in refused(capsys, "train", "--pair", "cat_dog", "--run-dir", tmp_path / "run", *arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--prompt", "photo of a <new1> cat and <new2> pig"], "The class 'dog' does not come after <new2>"),
        (["--prompt", "photo of a <new1> cat and dog"], "The modifier <new2> is not in the prompt"),
        (["--prompt", "photo of a <new1> cat and <new2> dog" + " and" * 80], "tokens but the text encoder reads 77"),
        (settings("modifiers=cat,<new2>"), "The modifier 'cat' is already a word of this model"),
        (["--prior", "nowhere"], "There is no folder nowhere of class pictures"),
    ],
)
def test_prompts_and_words_that_do_not_work(arguments, sentence, model, capsys, tmp_path):
    command = [
        "train",
        "--pair",
        "cat_dog",
        "--model",
        model,
        "--run-dir",
        tmp_path / "run",
        *settings(*QUICK, "steps=2"),
    ]
    assert sentence in refused(capsys, *command, *arguments)


@pytest.mark.parametrize("size, mode", [((70, 64), "RGBA"), ((64, 64), "L"), ((64, 64), "rotated")])
def test_unusual_pictures_work(size, mode, model, tmp_path, capsys):
    path, exif = tmp_path / "picture.png", Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB" if mode == "rotated" else mode, size).save(path, exif=exif)
    command = ["train", "--image", str(path), "--classes", "teddy bear,fire hydrant", "--model", str(model)]
    command += [
        "--method",
        "textual_inversion",
        "--run-dir",
        str(tmp_path / "run"),
        *settings("batch_size=1", "steps=1"),
    ]
    assert main(command) == 0, capsys.readouterr().err


def test_runs_that_cannot_be_used(trained, model, new_tiny_pipe, tmp_path, capsys):
    assert "There is no run in" in refused(capsys, "generate", tmp_path, "a cat")
    assert "There is no run in" in refused(capsys, "score", tmp_path)
    assert "<new3>" in refused(capsys, "generate", trained, "a <new3> cat")
    assert "There is no setting of the sampling 'steps'" in refused(capsys, "generate", trained, *settings("steps=3"))
    assert "resolution 60 is not a multiple of 8" in refused(capsys, "generate", trained, *settings("resolution=60"))
    other = new_tiny_pipe()
    with torch.no_grad():
        for weight in other.unet.parameters():
            weight.add_(1.0)
    other.save_pretrained(tmp_path / "other")
    assert "learned on another model" in refused(capsys, "generate", trained, "--model", tmp_path / "other")
    learned = trained / "pytorch_lora_weights.safetensors"
    whole = learned.read_bytes()
    learned.write_bytes(whole[:1000])
    assert "is truncated" in refused(capsys, "generate", trained, "a cat")
    learned.write_bytes(whole)
    another = ["train", "--pair", "dog_pig", "--model", model, "--run-dir", trained, *settings(*QUICK, "steps=2")]
    assert "holds another run" in refused(capsys, *another)


def test_no_room_and_no_permission(model, tmp_path, monkeypatch, capsys):
    command = ["train", "--pair", "cat_dog", "--model", model, *settings(*QUICK, "steps=2")]
    (tmp_path / "file").write_text("")
    assert "Cannot write" in refused(capsys, *command, "--run-dir", tmp_path / "file" / "run")
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: type("usage", (), {"free": 10}))
    assert "free some space" in refused(capsys, *command, "--run-dir", tmp_path / "run")


def test_ctrl_c_and_going_on(model, tmp_path, capsys):
    folder = tmp_path / "run"
    command = ["train", "--pair", "cat_dog", "--model", str(model), "--device", "cpu", "--run-dir", str(folder)]
    command += settings(*QUICK, "steps=400")
    process = subprocess.Popen(
        [sys.executable, "-m", "disendiff_lite", *command], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (folder / "checkpoint.safetensors").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    printed, said = process.communicate(timeout=60)
    assert process.returncode == 130 and printed == ""
    assert "Traceback" not in said
    assert said.splitlines()[-1] == "train: interrupted; the same command goes on from the last checkpoint."
    # Fewer steps are another run, which is refused: the interrupted one is not lost to a slip.
    assert "steps 400 instead of 3" in refused(capsys, *command[:-2], "--set", "steps=3")
    saved = len(read_losses(folder))
    records = commands.train_run(
        commands.load_pipeline(model, "cpu"),
        load_reference("cat_dog").picture,
        ("cat", "dog"),
        commands.Config.load(folder / "config.json"),
        run_dir=folder,
    )
    assert 1 < next(records).step <= saved + 1


def test_ctrl_c_in_a_report(model, tmp_path, capsys):
    """The kernel ends with it, and what the notebook's training had saved is kept."""
    training = (
        "from disendiff_lite.config import emoji\n"
        "from disendiff_lite.models import load_pipeline\n"
        "from disendiff_lite.runs.references import load_reference\n"
        "from disendiff_lite.runs.train import train\n"
        "reference = load_reference(pair)\n"
        "config = emoji(steps=100_000, batch_size=1, prior_probability=0.0, checkpoint_every=1)\n"
        f"pipe = load_pipeline({str(model)!r}, 'cpu')\n"
        "list(train(pipe, reference.picture, reference.classes, config, run_dir=run_dir))"
    )
    notebook = write_notebook(tmp_path / "small.ipynb", "import os\nprint('kernel', os.getpid(), flush=True)", training)
    command = ["report", "--pair", "cat_dog", "--notebooks", str(notebook), "--run-dir", str(tmp_path / "run")]
    checkpoint, over = tmp_path / "run" / "checkpoint.safetensors", threading.Event()

    def interrupt():
        while not over.wait(0.02):
            if checkpoint.exists():
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                return

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        status = main(command)
    finally:
        over.set()
        thread.join()
    printed, said = capsys.readouterr()
    assert status == 130 and "Traceback" not in said
    assert said.splitlines()[-1] == "report: interrupted; the same command goes on from the last checkpoint."
    with pytest.raises(ProcessLookupError):
        os.kill(int(printed.split()[1]), 0)
    assert 0 < files.read_tensors(checkpoint)[1]["step"] <= len(read_losses(tmp_path / "run"))


def test_ctrl_c_in_other_verbs(trained, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("disendiff_lite.cli.generate.draw_pictures", interrupt)
    assert "interrupted; start it again" in refused(capsys, "generate", trained, status=130)
