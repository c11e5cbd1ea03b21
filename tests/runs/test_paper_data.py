"""The paper's photographs: fetched whole, checked, resumed, and used like any other reference.

A server of this machine holds a repository of small pictures in place of the published one.
"""

import hashlib
import io
import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from disendiff_lite.cli import fetch
from disendiff_lite.cli.options import main
from disendiff_lite.runs import paper_data
from disendiff_lite.runs.folder import RunRecord, picture_hash
from disendiff_lite.runs.generate import reference_requests
from disendiff_lite.runs.paper_data import fetch_paper_data, paper_classes, paper_files, paper_pairs, repair_prompts
from disendiff_lite.runs.references import known_reference, load_reference, pair_names
from disendiff_lite.support.errors import UserError
from disendiff_lite.tokens import find_positions

PROMPTS = {
    "datasets/prompts/cat_dog_global.txt": "Photo of a <new1> cat and <new2> dog\n<new1> cat and <new2> small dog",
    "datasets/prompts/cat_dog_subject1.txt": "Photo of a <new1> cat \nphoto of <new1> big cat\n",
    "datasets/prompts/cat_dog_subject2.txt": "Photo of a <new2> dog",
    "datasets/prompts/cow_bird_global.txt": "Photo of a <new1> cow and two <mew2> birds\n<bird> on a <cow>",
    "datasets/prompts/cow_bird_subject1.txt": "Photo of a <new1> cow",
    "datasets/prompts/cow_bird_subject2.txt": "Photo of a <new2> bird",
}
PHOTOGRAPH = "datasets/images/cat_dog/cat-and-dog.jpg"


def photograph(seed: int, size=(120, 80)) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, format="JPEG", quality=90)
    return file.getvalue()


def published() -> dict[str, bytes]:
    pictures = [
        PHOTOGRAPH,
        "datasets/data_eval/cat_dog/subject1/cat.jpg",
        "datasets/data_eval/cat_dog/subject2/crop.jpg",
    ]
    pictures += ["datasets/images/cow_bird/cow_and_cow_bird1.jpg"]
    pictures += [f"datasets/data_eval/cow_bird/subject{number}/crop.jpg" for number in (1, 2)]
    return {path: photograph(seed) for seed, path in enumerate(pictures)} | {
        path: text.encode() for path, text in PROMPTS.items()
    }


class Repository(ThreadingHTTPServer):
    """Serves files, parts of files too, and does wrong what it is told to."""

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked, self.ranges = files, Counter(), []
        self.cut, self.lies, self.knows_parts = (
            {},
            {},
            True,
        )  # path -> bytes before it breaks off; path -> other content
        self.address = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        pass  # a client that hangs up is no news


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        path, server = self.path.lstrip("/"), self.server
        server.asked[path] += 1
        if path not in server.files:
            return self.send_error(404)
        content = server.lies.pop(path, server.files[path])
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(start[1]) if start and server.knows_parts else 0
        server.ranges += [(path, start)] * (start > 0)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : server.cut.pop(path, None)])

    def log_message(self, *_):
        pass


@pytest.fixture
def repository(tmp_path, monkeypatch):
    files = published()
    listed = [{"path": p, "bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for p, c in files.items()]
    manifest = tmp_path / "paper_files.json"
    manifest.write_text(json.dumps({"repository": "them/it", "commit": "1234", "files": listed}))
    monkeypatch.setattr(paper_data, "PAPER_FILES", manifest)
    for module in (paper_data, fetch):
        monkeypatch.setattr(module, "PAPER", tmp_path / "paper")
    monkeypatch.setattr(paper_data, "PAUSE", 0.01)
    monkeypatch.setattr(paper_data, "PIECE", 100)
    with Repository(files) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def place(tmp_path):
    return tmp_path / "paper"


def test_the_list_names_ten_photographs_two_crops_and_three_files_of_prompts_each():
    files = paper_files()
    assert len(paper_pairs()) == 10 and len(files) == 60
    assert {len(paper_classes(pair)) for pair in paper_pairs()} == {2}
    folders = Counter((file.pair, file.path.split("/")[1]) for file in files)
    assert all(folders[pair, "images"] == 1 and folders[pair, "data_eval"] == 2 for pair in paper_pairs())
    assert all(folders[pair, "prompts"] == 3 for pair in paper_pairs())
    assert all(re.fullmatch(r"[0-9a-f]{64}", file.sha256) and file.size > 0 for file in files)
    assert len({file.place for file in files} | {file.repaired for file in files}) == 60 + 30


def test_everything_is_fetched_once(repository, place):
    seen = []
    assert fetch_paper_data(repository.address, lambda *numbers: seen.append(numbers)) == 12
    assert seen == [(number, 12) for number in range(1, 13)]
    assert (place / "images/cat_dog/cat-and-dog.jpg").read_bytes() == repository.files[PHOTOGRAPH]
    assert not list(place.rglob("*.part")) and not list(place.rglob(".*.lock"))
    assert fetch_paper_data(repository.address) == 0
    assert set(repository.asked.values()) == {1}


def test_the_slips_are_repaired_and_the_originals_kept(repository, place):
    fetch_paper_data(repository.address)
    repaired, original = (place / "prompts" / f"cow_bird_global{end}.txt" for end in ("", ".original"))
    assert original.read_text() == PROMPTS["datasets/prompts/cow_bird_global.txt"]
    assert repaired.read_text() == "Photo of a <new1> cow and two <new2> birds\n<new2> bird on a <new1> cow\n"
    repaired.write_text("something else")
    assert fetch_paper_data(repository.address) == 0 and repaired.read_text().startswith("Photo of a <new1> cow and")
    assert repair_prompts("a <new1> chair \n\n", ("chair", "lamp")) == "a <new1> chair\n"


def test_a_broken_download_goes_on_where_it_stopped(repository, place):
    repository.cut[PHOTOGRAPH] = 1000
    fetch_paper_data(repository.address)
    assert repository.ranges == [(PHOTOGRAPH, 1000)] and repository.asked[PHOTOGRAPH] == 2
    assert (place / "images/cat_dog/cat-and-dog.jpg").read_bytes() == repository.files[PHOTOGRAPH]


def test_a_later_call_goes_on_too(repository, place, monkeypatch):
    monkeypatch.setattr(paper_data, "TRIES", 1)
    repository.cut[PHOTOGRAPH] = 1000
    with pytest.raises(UserError, match="the connection broke off"):
        fetch_paper_data(repository.address)
    assert [path.stat().st_size for path in place.rglob("*.part")] == [1000]
    assert fetch_paper_data(repository.address) == 12 and repository.ranges == [(PHOTOGRAPH, 1000)]


def test_a_server_without_parts_gives_the_whole_file_again(repository, place):
    repository.cut[PHOTOGRAPH], repository.knows_parts = 1000, False
    fetch_paper_data(repository.address)
    assert (place / "images/cat_dog/cat-and-dog.jpg").read_bytes() == repository.files[PHOTOGRAPH]


def test_a_damaged_file_is_fetched_again(repository, place):
    fetch_paper_data(repository.address)
    picture = place / "images/cat_dog/cat-and-dog.jpg"
    content = bytearray(picture.read_bytes())
    content[500] ^= 1
    picture.write_bytes(content)
    assert fetch_paper_data(repository.address) == 1 and picture.read_bytes() == repository.files[PHOTOGRAPH]
    assert repository.asked[PHOTOGRAPH] == 2


@pytest.mark.parametrize("other", [b"<html>Please log in</html>", b"x" * 200_000])
def test_what_is_not_the_file_is_refused(repository, place, other):
    repository.files[PHOTOGRAPH] = other
    with pytest.raises(UserError, match=r"cat-and-dog\.jpg \(.*(not the published file|broke off)"):
        fetch_paper_data(repository.address)
    assert not (place / "images/cat_dog/cat-and-dog.jpg").exists()


def test_one_wrong_answer_is_forgiven(repository, place):
    repository.lies[PHOTOGRAPH] = b"x" * len(repository.files[PHOTOGRAPH])
    assert fetch_paper_data(repository.address) == 12
    assert (place / "images/cat_dog/cat-and-dog.jpg").read_bytes() == repository.files[PHOTOGRAPH]


def test_the_command_says_where_they_lie(repository, place, capsys):
    assert main(["fetch-paper-data", "--source", repository.address + "/"]) == 0
    assert capsys.readouterr().out == f"{place}\n"
    assert main(["fetch-paper-data", "--source", repository.address]) == 0
    assert "nothing to do" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["http://127.0.0.1:9", "elsewhere", "http://nowhere.invalid"])
def test_no_network_is_one_sentence(repository, place, source, capsys):
    assert main(["fetch-paper-data", "--source", source]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"fetch-paper-data: Cannot fetch {source}/datasets/") and len(said.splitlines()) == 1
    assert not place.exists() or not [path for path in place.rglob("*") if path.is_file()]


def test_a_folder_that_cannot_be_written_is_one_sentence(repository, place):
    place.write_text("a file in its place")
    with pytest.raises(UserError, match=f"Cannot write {place} .*make it a folder that you may write to"):
        fetch_paper_data(repository.address)
    assert not repository.asked


def test_a_file_that_the_source_lacks_is_named(repository):
    del repository.files[PHOTOGRAPH]
    with pytest.raises(UserError, match=f"Cannot fetch {repository.address}/{PHOTOGRAPH} .*404.*address of the source"):
        fetch_paper_data(repository.address)
    assert repository.asked[PHOTOGRAPH] == 1  # asking again would not help


def test_a_photograph_is_a_reference(repository, place):
    with pytest.raises(UserError, match="run disendiff fetch-paper-data once"):
        load_reference("paper/cat_dog")
    with pytest.raises(UserError, match="choose one of paper/cat_dog, paper/cow_bird"):
        load_reference("paper/dog_cat")
    fetch_paper_data(repository.address)
    reference = load_reference("paper/cat_dog")
    assert reference.classes == ("cat", "dog") and reference.masks is None and reference.picture.size == (120, 80)
    crops = [place / "data_eval/cat_dog" / name for name in ("subject1/cat.jpg", "subject2/crop.jpg")]
    assert [picture_hash(crop) for crop in reference.crops] == [picture_hash(Image.open(crop)) for crop in crops]
    assert reference.prompts.combined == ("Photo of a {0} and {1}", "{0} and {modifier1} small dog")
    assert reference.prompts.independent[0] == ("Photo of a {0}", "photo of {modifier0} big cat")
    assert not any("paper" in name for name in pair_names())


def test_a_run_knows_its_photograph(repository):
    fetch_paper_data(repository.address)
    reference = load_reference("paper/cow_bird")
    record = RunRecord(("cow", "bird"), ("<a>", "<b>"), "", picture_hash(reference.picture), None, {})
    assert known_reference(record).name == "paper/cow_bird"
    prompts = [request.prompt for request in reference_requests(load_reference("paper/cat_dog"), record)]
    assert "<a> cow and <b> small dog" in prompts  # the run's own modifiers


def test_a_repaired_prompt_has_its_concepts_in_place(repository, tiny_pipe):
    fetch_paper_data(repository.address)
    reference = load_reference("paper/cow_bird")
    record = RunRecord(reference.classes, ("<new1>", "<new2>"), "", "", None, {})
    tiny_pipe.tokenizer.add_tokens(["<new1>", "<new2>"])
    prompt = reference_requests(reference, record)[1].prompt
    bird, cow = (
        place for place in reversed(find_positions(tiny_pipe.tokenizer, prompt, record.modifiers, record.classes))
    )
    assert prompt == "<new2> bird on a <new1> cow" and bird.modifier == 1 and cow.class_ == (6,)
