"""The page in a real browser: a headless Chromium that is driven by keys and by the mouse."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigrad.rlhf import Film, LabelDesk

from . import room

pytest.importorskip("fastapi", reason='needs pip install "bigrad[label]"')
pytest.importorskip("uvicorn", reason='needs pip install "bigrad[label]"')
pytest.importorskip("selenium", reason="needs pip install selenium")

import uvicorn
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip(
        "there is no Chromium with its driver: apt-get install chromium chromium-driver", allow_module_level=True
    )

DEADLINE = 60  # seconds: only a hang takes that long
PENDING = "return document.querySelector('[data-choice]').disabled"
COUNTS = "return document.getElementById('counts').textContent"


class Served:
    """A run whose page is served, and what a person does there."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder, self.desk = folder, LabelDesk(folder)
        page, label = (import_module(f".{name}", "bigrad.cli") for name in ("label_page", "label"))
        listener = label.listen(port, folder)
        self.port = listener.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}/secret/"
        config = uvicorn.Config(page.label_page(self.desk, "secret"), lifespan="off", ws="none", log_level="warning")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]})
        self.thread.start()

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.desk.store.close()


@pytest.fixture(scope="module")
def clip() -> bytes:
    film = Film(room.Counter(shape=(80, 120, 3)), seconds=0.2)
    film.reset()
    for _ in range(10):
        film.step(np.zeros(1))
    return film.clip(range(9, -1, -1))


@pytest.fixture
def served(tmp_path: Path, clip: bytes) -> Iterator[Served]:
    folder = room.configure(tmp_path / "run")
    room.open_store(folder).ask(room.pairs(4), [(clip, clip)] * 4, 7, [False, True, False, True])
    run = Served(folder)
    yield run
    run.close()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield browser
    browser.quit()


@pytest.fixture
def page(chromium: Any, served: Served) -> Iterator[Any]:
    """A fresh window on the first pair."""
    chromium.switch_to.new_window("window")
    chromium.get(served.address)
    ready(chromium)
    yield chromium
    for window in chromium.window_handles[1:]:
        chromium.switch_to.window(window)
        chromium.close()
    chromium.switch_to.window(chromium.window_handles[0])
    chromium.get_log("browser")


def until(browser: Any, what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not what():
        seen = browser.find_element(By.TAG_NAME, "body").text
        assert time.monotonic() < deadline, f"the page stays at: {seen}"
        time.sleep(0.02)


def ready(browser: Any) -> None:
    until(browser, lambda: not browser.execute_script(PENDING))


def press(browser: Any, key: str, counts: str) -> None:
    """Press a key once the pair is to be seen, and wait until the page counts so many."""
    ready(browser)
    ActionChains(browser).send_keys(key).perform()
    until(browser, lambda: browser.execute_script(COUNTS).startswith(counts))


def said(browser: Any) -> str:
    return str(browser.find_element(By.ID, "message").text)


def labels(served: Served) -> list[float | None]:
    return [label for (label,) in room.rows(served.folder, "label")]


def answered(served: Served) -> list[bool]:
    return [at is not None for (at,) in room.rows(served.folder, "answered_at")]


def test_four_keys_say_four_things_and_the_page_goes_on_by_itself(page: Any, served: Served, clip: bytes) -> None:
    images = page.find_elements(By.TAG_NAME, "img")
    sizes = [
        page.execute_script("return [arguments[0].naturalWidth, arguments[0].naturalHeight]", img) for img in images
    ]
    assert sizes == [[120, 80]] * 2
    assert [image.is_displayed() for image in images] == [True, True]
    for number, key in enumerate((Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_UP, Keys.ARROW_DOWN), start=1):
        press(page, key, f"{number} of 8 answered, {4 - number} waiting")
        assert sum(answered(served)) == number
    assert labels(served) == [0, 1, 0.5, None]
    assert all(0 < seconds < DEADLINE for (seconds,) in room.rows(served.folder, "seconds"))
    assert "No pair is waiting." in page.find_element(By.ID, "waiting").text
    assert not page.find_element(By.ID, "pair").is_displayed()
    room.open_store(served.folder).ask(room.pairs(1, 4), [(clip, clip)], 9, [False])
    ready(page)
    press(page, Keys.ARROW_RIGHT, "5 of 8 answered, 0 waiting")
    assert labels(served)[-1] == 1
    assert page.get_log("browser") == []  # the policy held nothing back


@pytest.mark.parametrize("key", ["u", Keys.BACKSPACE])
def test_undo_brings_the_pair_back(page: Any, served: Served, key: str) -> None:
    press(page, Keys.ARROW_LEFT, "1 of 8")
    press(page, Keys.ARROW_LEFT, "2 of 8")
    press(page, key, "1 of 8")
    assert said(page) == "Taken back: choose again."
    assert answered(served) == [True, False, False, False]
    press(page, Keys.ARROW_RIGHT, "2 of 8")
    assert labels(served) == [0, 0, None, None]
    press(page, key, "1 of 8")
    press(page, key, "0 of 8")
    assert not page.find_element(By.ID, "undo").is_enabled()


def test_everything_can_be_reached_with_the_tab_key_and_seen(page: Any, served: Served) -> None:
    press(page, Keys.ARROW_LEFT, "1 of 8")
    ready(page)
    names = []
    for _ in range(5):
        ActionChains(page).send_keys(Keys.TAB).perform()
        focus = page.switch_to.active_element
        names.append(focus.accessible_name)
        assert focus.value_of_css_property("outline-style") == "solid"
        assert focus.aria_role == "button"
    starts = ("left clip Left is better", "right clip Right is better", "Equally good", "Cannot tell, skip", "Undo")
    assert all(name.startswith(start) for name, start in zip(names, starts, strict=True)), names
    assert page.find_element(By.ID, "bar").accessible_name == "1 of 8 answered, 3 waiting"
    ActionChains(page).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()
    press(page, Keys.ENTER, "2 of 8")  # on "skip"
    assert (labels(served)[1], answered(served)) == (None, [True, True, False, False])


def test_the_mouse_does_as_well(page: Any, served: Served) -> None:
    for number, choice in enumerate(("right", "right", "equal", "skip"), start=1):
        ready(page)
        page.find_element(By.CSS_SELECTOR, f"[data-choice={choice}]").click()
        until(page, lambda number=number: sum(answered(served)) == number)
    assert labels(served) == [1, 0, 0.5, None]
    until(page, lambda: page.execute_script(COUNTS).startswith("4 of 8"))
    page.find_element(By.ID, "undo").click()
    until(page, lambda: sum(answered(served)) == 3)


def test_a_key_held_down_is_one_answer_and_shortcuts_are_left_alone(page: Any, served: Served) -> None:
    press_left = "document.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft', %s}))"
    for odd in ("repeat: true", "ctrlKey: true", "altKey: true", "metaKey: true", "shiftKey: true"):
        assert not page.execute_script(f"{press_left % odd}; {PENDING}"), odd
    page.execute_script(";".join([press_left % "repeat: false"] * 5))  # all before the first is stored
    until(page, lambda: page.execute_script(COUNTS).startswith("1 of 8"))
    ready(page)
    assert answered(served) == [True, False, False, False]
    press(page, "u", "0 of 8")
    assert not page.find_element(By.ID, "undo").is_enabled()  # one answer, one undo


def test_two_windows_get_two_pairs_and_the_slower_one_is_told(page: Any, served: Served) -> None:
    first = page.current_window_handle
    page.switch_to.new_window("window")
    page.get(served.address)
    ready(page)
    shown = page.find_element(By.ID, "left").get_attribute("src")
    assert shown == f"{served.address}clip/2/left"
    served.desk.answer(2, "right")  # elsewhere
    press(page, Keys.ARROW_LEFT, "1 of 8")
    assert said(page).startswith("This pair has been answered already")
    ready(page)
    assert page.find_element(By.ID, "left").get_attribute("src") == f"{served.address}clip/3/left"
    assert labels(served) == [None, 0, None, None]
    page.close()  # in mid-label
    page.switch_to.window(first)
    press(page, Keys.ARROW_LEFT, "2 of 8")
    assert answered(served) == [True, True, False, False]


def test_a_reload_keeps_the_pair_and_the_undo(page: Any, served: Served) -> None:
    press(page, Keys.ARROW_LEFT, "1 of 8")
    page.refresh()
    ready(page)
    assert page.find_element(By.ID, "left").get_attribute("src").endswith("clip/2/left")
    press(page, "u", "0 of 8")
    assert answered(served) == [False] * 4


def test_when_the_server_is_gone_the_page_says_so_and_comes_back(page: Any, served: Served) -> None:
    press(page, Keys.ARROW_LEFT, "1 of 8")
    ready(page)
    served.close()
    ActionChains(page).send_keys(Keys.ARROW_LEFT).perform()
    until(page, lambda: said(page).startswith("No connection. What was answered is kept"))
    again = Served(served.folder, served.port)
    try:
        until(page, lambda: said(page) == "")
        press(page, Keys.ARROW_RIGHT, "2 of 8")
        assert labels(served) == [0, 0, None, None]
    finally:
        again.close()
    page.get_log("browser")
