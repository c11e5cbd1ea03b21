"""The explorers in a real browser: the offline page opened from disk without a network, a report that holds it, and the
widget in JupyterLab. They need Chromium and its driver (Debian, Ubuntu: apt install chromium chromium-driver) and are
skipped without.
"""

import base64
import io
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys

import nbformat
import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from disendiff_lite.report.page import explorer_section, render_page
from disendiff_lite.show.explorer.page import write_explorer
from disendiff_lite.show.explorer.picture import colour_places, draw_view, overlay_tile, picture_tile, range_label
from disendiff_lite.show.explorer.view import View, select_maps

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
NAMES = ("before", "after")
SCREEN = "--window-size=1300,1100"
QUIET = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    SCREEN,
)
PATIENCE = 120  # seconds, for what takes a few on a machine that has nothing else to do
NO_NETWORK = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="no Chromium with chromedriver here (apt install chromium chromium-driver)",
    ),
]


@pytest.fixture
def browser(tmp_path):
    """A headless Chromium that reaches this machine alone and keeps files that it downloads in tmp_path/downloads."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*QUIET, NO_NETWORK, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path / "downloads")})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    yield driver
    driver.quit()


def wait(browser, condition, seconds: float = 20):
    return WebDriverWait(browser, seconds, poll_frequency=0.1).until(lambda _: condition())


def opened(browser, path) -> None:
    """Open a page from disk, and wait until it has drawn."""
    browser.get(path.as_uri())
    wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#cards canvas"))


def canvases(browser) -> list[np.ndarray]:
    """The pixels of all tiles, uint8 (height, width, 3) each, card after card."""
    urls = browser.execute_script("return [...document.querySelectorAll('#cards canvas')].map((c) => c.toDataURL())")
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB")) for url in urls]


def texts(browser, selector: str) -> list[str]:
    return [found.text for found in browser.find_elements(By.CSS_SELECTOR, selector)]


def move(browser, selector: str, steps: int) -> None:
    """Move a slider with the keyboard."""
    slider = browser.find_element(By.CSS_SELECTOR, selector)
    slider.send_keys(*[Keys.ARROW_RIGHT if steps > 0 else Keys.ARROW_LEFT] * abs(steps))


def requests(browser) -> list[str]:
    """The addresses that the browser asked for, but for those that hold their own contents and its own first page's."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith(("data:", "blob:", "chrome:", "chrome-untrusted:", "about:"))]


def assert_shows(browser, records, view: View) -> None:
    """The page shows what the widget draws: the same numbers, and the same colours but for rounding."""
    maps = select_maps(records, view)
    tiles = [picture_tile(record.picture) for record in records]
    places = colour_places(maps, view.shared)
    expected = [
        overlay_tile(places[row, column], tiles[row], view.strength)
        for column in range(len(view.words))
        for row in range(len(records))
    ]
    shown = canvases(browser)
    assert len(shown) == len(records) + len(expected)
    for tile, picture in zip(tiles, shown):
        assert np.array_equal(tile, picture)
    for one, other in zip(expected, shown[len(records) :]):
        assert np.abs(one.astype(int) - other).max() <= 8  # a place on the colour scale more or less
    numbers = [
        number
        for text in texts(browser, "figcaption .value")
        for number in text.replace("max", "").split("to")
        if number
    ]
    written = [
        range_label(maps[row, column], view.shared) for column in range(len(view.words)) for row in range(len(records))
    ]
    truth = [number for text in written for number in text.replace("max", "").split("to")]
    assert np.allclose([float(number) for number in numbers], [float(number) for number in truth], atol=6e-4)


def test_the_page_works_from_disk_without_a_network(new_record, tmp_path, browser):
    records = (new_record(), new_record(1))
    write_explorer(tmp_path / "explorer.html", records[0], records[1], names=NAMES)
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0},
    )
    opened(browser, tmp_path / "explorer.html")
    assert_shows(browser, records, View((1, 2, 5), "16x16"))
    before = canvases(browser)
    move(browser, "#step", 3)
    assert texts(browser, "#step-label") == ["step 3 of 5, noise level 500"]
    after = canvases(browser)
    assert all(
        not np.array_equal(one, other) for one, other in zip(before[2:], after[2:])
    )  # the first two are the pictures
    assert_shows(browser, records, View((1, 2, 5), "16x16", step=2))

    boxes = browser.find_elements(By.CSS_SELECTOR, "#words input")
    boxes[0].send_keys(Keys.SPACE)
    boxes[2].click()
    Select(browser.find_element(By.ID, "layer")).select_by_visible_text("up 2")
    Select(browser.find_element(By.ID, "head")).select_by_visible_text("4 of 4")
    Select(browser.find_element(By.ID, "scale")).select_by_visible_text("each map its own")
    move(browser, "#strength", 4)
    assert_shows(browser, records, View((0, 1, 5), "16x16", step=2, layer=2, head=3, strength=0.8, shared=False))
    Select(browser.find_element(By.ID, "grid")).select_by_visible_text("8x8")  # other layers and heads: means again
    assert_shows(browser, records, View((0, 1, 5), "8x8", step=2, strength=0.8, shared=False))

    assert browser.get_log("browser") == []
    assert requests(browser) == [(tmp_path / "explorer.html").as_uri()]


def test_the_page_saves_the_picture_that_the_widget_draws(new_record, tmp_path, browser):
    records = (new_record(), new_record(1))
    write_explorer(tmp_path / "explorer.html", records[0], records[1], names=NAMES)
    opened(browser, tmp_path / "explorer.html")
    move(browser, "#step", 2)
    browser.find_element(By.ID, "save").click()
    saved = tmp_path / "downloads" / "attention-step-02.png"
    wait(browser, saved.is_file)
    picture = np.asarray(Image.open(saved).convert("RGB")).astype(int)
    expected = np.asarray(draw_view(records, NAMES, View((1, 2, 5), "16x16", step=1))).astype(int)
    assert picture.shape == expected.shape
    assert np.abs(picture - expected).mean() < 3  # letters are drawn by another hand


def test_odd_words_are_shown_as_they_are(new_record, tmp_path, browser):
    words = ("</script><b>a</b>", "<new1>", "&lt;cat", "猫", "a", "dog")
    write_explorer(tmp_path / "explorer.html", new_record(prompt=" ".join(words), words=words), words=words)
    opened(browser, tmp_path / "explorer.html")
    assert texts(browser, "h1") == [" ".join(words)]
    assert texts(browser, "#words label span") == list(words)
    assert browser.get_log("browser") == []


def test_play_goes_through_the_steps_once(new_record, tmp_path, browser):
    write_explorer(tmp_path / "explorer.html", new_record())
    opened(browser, tmp_path / "explorer.html")
    play = browser.find_element(By.ID, "play")
    play.click()
    assert play.get_attribute("aria-label") == "Stop"
    wait(browser, lambda: texts(browser, "#step-label") == ["step 5 of 5, noise level 100"])
    wait(browser, lambda: play.get_attribute("aria-label") == "Play the steps")


def test_a_report_holds_the_page_in_a_frame(new_record, tmp_path, browser):
    write_explorer(tmp_path / "attention-maps.html", new_record())
    section = explorer_section(tmp_path / "attention-maps.html")
    (tmp_path / "report.html").write_text(render_page("A run", [section], [], []), encoding="utf-8")
    browser.get((tmp_path / "report.html").as_uri())
    frame = browser.find_element(By.CSS_SELECTOR, "iframe")
    wait(browser, lambda: "height" in frame.get_attribute("style"))  # as high as its contents
    browser.switch_to.frame(frame)
    wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#cards canvas"))
    before = canvases(browser)
    move(browser, "#step", 2)
    assert not np.array_equal(before[1], canvases(browser)[1])
    assert browser.execute_script("return document.documentElement.scrollHeight <= window.innerHeight")
    assert browser.execute_script("return document.documentElement.clientWidth == window.innerWidth")  # no scroll bar
    assert browser.get_log("browser") == []
    assert requests(browser) == [(tmp_path / "report.html").as_uri()]


@pytest.fixture
def lab(tmp_path):
    """JupyterLab on a free port: its address, with a token, and the folder that it shows."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token, folder = secrets.token_hex(16), tmp_path / "notebooks"
    folder.mkdir()
    kept = {f"JUPYTER_{kind}_DIR": str(tmp_path / "jupyter" / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        f"--port={port}",
        f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={folder}",
        "--expose-app-in-browser",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    with open(tmp_path / "lab.log", "w") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | kept | {"IPYTHONDIR": str(tmp_path / "ipython")}
        )
    yield f"http://127.0.0.1:{port}/lab/tree/test.ipynb?token={token}", folder
    server.terminate()
    server.wait(timeout=20)


def reachable(browser, url: str) -> bool:
    browser.get(url)
    return "JupyterLab" in browser.title or "test.ipynb" in browser.title


def test_the_widget_in_jupyterlab(new_record, lab, browser):
    url, folder = lab
    new_record().save(folder / "record.npz")
    lines = [
        "from disendiff_lite.attention_record import AttentionRecord",
        "from disendiff_lite.show import AttentionExplorer",
        "explorer = AttentionExplorer(AttentionRecord.load('record.npz'))",
        "explorer",
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [nbformat.v4.new_code_cell("\n".join(lines))]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / "test.ipynb")

    WebDriverWait(browser, PATIENCE, poll_frequency=0.5, ignored_exceptions=[Exception]).until(
        lambda _: reachable(browser, url)
    )
    # Nothing has the focus by itself in every version of a headless browser, and commands go to the notebook that was
    # activated.
    status = """const shell = window.jupyterapp?.shell, 
        panel = [...(shell?.widgets("main") ?? [])].find((one) => one.sessionContext);
                if (panel) shell.activateById(panel.id);
                return panel?.sessionContext.session?.kernel?.status"""
    wait(
        browser, lambda: browser.execute_script(status) == "idle", PATIENCE
    )  # before, it would ask which kernel to take
    browser.execute_script("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    image = wait(
        browser, lambda: next(iter(browser.find_elements(By.CSS_SELECTOR, "img.disendiff-maps")), None), PATIENCE
    )
    wait(browser, lambda: image.get_property("naturalWidth") > 0)
    chips = [chip.text for chip in browser.find_elements(By.CSS_SELECTOR, "button.widget-toggle-button")]
    assert chips == ["a", "<new1> · modifier", "cat · class", "and", "a (2)", "dog · class"]
    before, source = image.screenshot_as_png, image.get_attribute("src")
    handle = browser.find_element(By.CSS_SELECTOR, ".noUi-handle")
    handle.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    wait(browser, lambda: "step 2 of 5, noise level 700" in texts(browser, ".jupyter-widgets.widget-label"))
    wait(browser, lambda: image.get_attribute("src") != source and image.get_property("naturalWidth") > 0)
    wait(browser, lambda: image.screenshot_as_png != before)

    grid, layer, _, _ = browser.find_elements(By.CSS_SELECTOR, ".widget-dropdown select")
    chosen = "return arguments[0].value"
    assert browser.execute_script(chosen, layer) == "mean of 3"
    Select(grid).select_by_visible_text("8x8")
    wait(browser, lambda: browser.execute_script(chosen, layer) == "mean of 2")
