"""The paper's ten photographs, their crops and their prompts, fetched from the published repository.

    <PAPER>/images/cat_dog/cat-and-dog.jpg            the photograph
    <PAPER>/data_eval/cat_dog/subject1/cat.jpg        the crop of its first concept, and so on
    <PAPER>/prompts/cat_dog_global.txt                prompts for all concepts; _subject1.txt: for the first alone
    <PAPER>/prompts/cat_dog_global.original.txt       the same as published

The files' commit, sizes and SHA-256 are in PAPER_FILES; those of the repository that nothing here uses are left out. In
some of the published prompts a modifier is misspelt ("<mew2>") or a class stands in brackets, as if it were one
("<chair>"). What was trained is "<new2>" and "<new1> chair", so the prompts are read with these slips repaired.
"""

import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from disendiff_lite.support.errors import UserError, first_line
from disendiff_lite.support.files import check_writable, explaining, read_json, read_text, write_text
from disendiff_lite.support.lock import sole_writer
from disendiff_lite.support.paths import PAPER, PAPER_FILES, check_shipped

HUB = "https://raw.githubusercontent.com"
TRIES, PAUSE = 4, 0.5  # of a file; seconds before the second one, twice as long before each that follows
TIMEOUT = (10, 30)  # seconds until a connection stands, and between two pieces of a file
PIECE = 1 << 16  # bytes
SUBJECTS = ("global", "subject1", "subject2")  # of the prompts: all concepts, then each alone
BROKEN = "the connection broke off"
MISSPELT = re.compile(r"<mew(\d)>")


@dataclass(frozen=True)
class PaperFile:
    """A file of the published repository. path: in it. size: bytes. sha256: of its content, hex digits."""

    path: str
    size: int
    sha256: str

    @property
    def place(self) -> Path:
        """Where the file lies as published."""
        place = PAPER / self.path.removeprefix("datasets/")
        return place.with_suffix(".original.txt") if self.is_prompts else place

    @property
    def repaired(self) -> Path:
        """Where the prompts of a file of prompts lie without their slips."""
        return PAPER / self.path.removeprefix("datasets/")

    @property
    def is_prompts(self) -> bool:
        return self.path.endswith(".txt")

    @property
    def pair(self) -> str:
        """The pair that it belongs to, such as "cat_dog"."""
        folder, name = Path(self.path).parts[1:3]
        return name.rpartition("_")[0] if folder == "prompts" else name


@dataclass(frozen=True)
class PaperPair:
    """The files of one pair. prompts: for all concepts, then for each alone, with the modifiers <new1>, <new2>."""

    classes: tuple[str, ...]
    picture: Path
    crops: tuple[Path, ...]
    prompts: tuple[tuple[str, ...], ...]


def paper_files() -> list[PaperFile]:
    """The files that are fetched, as PAPER_FILES lists them; none in an installed package, which lacks that list."""
    if not PAPER_FILES.exists():
        return []
    return [PaperFile(each["path"], each["bytes"], each["sha256"]) for each in _manifest()["files"]]


def paper_pairs() -> list[str]:
    """The names of the paper's pairs, whether they were fetched or not."""
    return sorted({file.pair for file in paper_files()})


def paper_classes(pair: str) -> tuple[str, ...]:
    """What the photograph of a pair shows, in the order of its concepts."""
    return tuple(pair.split("_"))


def is_fetched(pair: str) -> bool:
    """Whether every file of a pair is there; whether they are undamaged is what fetch_paper_data looks after."""
    files = [file for file in paper_files() if file.pair == pair]
    return all(path.is_file() for file in files for path in (file.place, file.repaired))


def read_paper_pair(pair: str) -> PaperPair:
    """The files of a pair that was fetched. Raises UserError if one is missing."""
    if not is_fetched(pair):
        raise UserError(f"The paper's photograph {pair} is not here yet: run disendiff fetch-paper-data once.")
    files = {file.path: file for file in paper_files() if file.pair == pair}
    pictures = {path: file.place for path, file in files.items() if not file.is_prompts}
    lists = [read_text(PAPER / "prompts" / f"{pair}_{subject}.txt") for subject in SUBJECTS]
    return PaperPair(
        paper_classes(pair),
        next(place for path, place in pictures.items() if "/images/" in path),
        tuple(
            place for path, place in sorted(pictures.items()) if "/data_eval/" in path
        ),  # .../subject1/, .../subject2/
        tuple(tuple(line for line in text.splitlines() if line) for text in lists),
    )


def repair_prompts(text: str, classes: Sequence[str]) -> str:
    """The prompts of a file, a line each, without the slips that the top of this module names and without blanks."""
    text = MISSPELT.sub(r"<new\1>", text)
    for number, class_ in enumerate(classes, start=1):
        text = text.replace(f"<{class_}>", f"<new{number}> {class_}")
    return "".join(f"{line.strip()}\n" for line in text.splitlines() if line.strip())


def fetch_paper_data(source: str | None = None, progress: Callable[[int, int], None] | None = None) -> int:
    """Bring every file that is missing or damaged, each checked by its SHA-256, and repair the prompts.

    A download that broke off goes on where it stopped, also in a later call.

    source: address of a folder that holds the repository's files, for where GitHub cannot be reached; None takes the
        pinned commit on GitHub.
    progress: called with how many files are there and how many there will be, after each that is fetched.

    Returns how many files were fetched. Raises UserError if a file cannot be fetched, is not the published one, or
    cannot be written; what was fetched before is kept.
    """
    check_shipped(PAPER_FILES)
    manifest, files = _manifest(), paper_files()
    source = source or f"{HUB}/{manifest['repository']}/{manifest['commit']}"
    missing = [file for file in files if not _is_whole(file.place, file)]
    if missing:
        check_writable(PAPER, "free some space, or make it a folder that you may write to")
        with sole_writer(PAPER, "fetch"), _session() as session:
            for done, file in enumerate(missing, start=len(files) - len(missing) + 1):
                _fetch(session, f"{source.rstrip('/')}/{file.path}", file)
                if progress is not None:
                    progress(done, len(files))
    for file in (file for file in files if file.is_prompts):
        repaired = repair_prompts(read_text(file.place), paper_classes(file.pair))
        if not file.repaired.is_file() or file.repaired.read_bytes() != repaired.encode():
            write_text(file.repaired, repaired)
    return len(missing)


def _manifest() -> dict:
    return read_json(PAPER_FILES, "is damaged: restore it from the repository.")


def _is_whole(path: Path, file: PaperFile) -> bool:
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    with explaining(path), open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256


def _session() -> requests.Session:
    """Connections that try again where a server is busy; a broken download is taken up by _fetch."""
    session = requests.Session()
    busy = Retry(total=TRIES, connect=1, backoff_factor=PAUSE, status_forcelist=(429, 500, 502, 503, 504))
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=busy))
    session.headers["Accept-Encoding"] = "identity"  # a part of a compressed file would be counted in other bytes
    return session


def _fetch(session: requests.Session, address: str, file: PaperFile) -> None:
    part = file.place.with_name(f".{file.place.name}.part")
    with explaining(file.place):
        file.place.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(TRIES):
            time.sleep(PAUSE * 2 ** (attempt - 1) if attempt else 0)
            try:
                _go_on(session, address, part, file.size)
                trouble = BROKEN
            except requests.HTTPError as error:
                raise UserError(
                    f"Cannot fetch {address} ({first_line(error)}): check the address of the source."
                ) from None
            except requests.RequestException as error:
                trouble = _trouble(error)
                if not part.exists():  # not a byte has come: there is no use in trying again at once
                    break
            if part.exists() and part.stat().st_size >= file.size:
                if _is_whole(part, file):
                    os.replace(part, file.place)
                    return
                part.unlink()
                trouble = "it is not the published file"
    raise UserError(
        f"Cannot fetch {address} ({trouble}): check the network, or name a copy of the repository with --source; what"
        " was fetched is kept."
    )


def _go_on(session: requests.Session, address: str, part: Path, size: int) -> None:
    """Add to a part of a file what it lacks, or all of it, if the server knows no parts."""
    there = part.stat().st_size if part.exists() else 0
    if there >= size:
        return
    asked = {"Range": f"bytes={there}-"} if there else {}
    with session.get(address, headers=asked, stream=True, timeout=TIMEOUT) as answer:
        answer.raise_for_status()
        with open(part, "ab" if answer.status_code == requests.codes.partial_content else "wb") as file:
            for piece in answer.iter_content(PIECE):
                file.write(piece)
                if file.tell() > size:  # something else than the file, perhaps without an end
                    return


def _trouble(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return "there was no answer in time"
    if isinstance(error, requests.exceptions.RetryError):
        return "the server is busy"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return BROKEN
    return "there is no connection" if isinstance(error, requests.ConnectionError) else first_line(error)
