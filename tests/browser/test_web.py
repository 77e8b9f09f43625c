"""examples/web in a real browser: what a person does there, and sees."""

from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions as seen
from selenium.webdriver.support.ui import WebDriverWait

from hskv import KeyValueStore
from hskv.mariadb import PrivateServer

from ..serving import serving

# Given, so that selenium looks for none to download.
DRIVER = "/usr/bin/chromedriver"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_SECONDS = 20.0

Browser = webdriver.Chrome


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        yield browser
    finally:
        browser.quit()


@pytest.fixture(scope="module")
def served(hskv_server: PrivateServer) -> Iterator[str]:
    with serving("web", hskv_server.url) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture
def address(served: str, hskv_store: KeyValueStore[str, object]) -> str:
    """Where the page is, with nothing remembered."""
    return served


def press(browser: Browser, label: str) -> None:
    browser.find_element(By.XPATH, f"//button[.='{label}']").click()


def wait_for_text(browser: Browser, id: str, text: str) -> None:  # noqa: A002 as HTML has it
    shown = seen.text_to_be_present_in_element((By.ID, id), text)
    WebDriverWait(browser, PATIENCE_SECONDS).until(shown)


def wait_for_script(browser: Browser) -> None:
    """Before, a button sends its form and the page is another one."""
    state = "return document.readyState === 'complete'"
    WebDriverWait(browser, PATIENCE_SECONDS).until(lambda _: browser.execute_script(state))


def test_a_click_is_seen_in_another_window_without_a_reload(browser: Browser, address: str) -> None:
    browser.get(address)
    onlooker = browser.current_window_handle
    wait_for_text(browser, "count", "0")
    browser.execute_script("window.loaded = 'once'")
    browser.switch_to.new_window("window")
    browser.get(address)
    browser.find_element(By.ID, "name-field").send_keys("Ann")
    press(browser, "Sign in")
    wait_for_text(browser, "name", "Ann")
    wait_for_script(browser)
    for clicks in ("1", "2"):
        press(browser, "Count one more")
        wait_for_text(browser, "count", clicks)
    browser.switch_to.window(onlooker)
    wait_for_text(browser, "count", "2")
    assert browser.execute_script("return window.loaded") == "once"
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]


def test_too_many_clicks_are_told_on_the_page(browser: Browser, address: str) -> None:
    browser.get(address)
    note = browser.find_element(By.ID, "note")

    def click_and_look(_: Browser) -> bool:
        press(browser, "Count one more")
        return note.text.startswith("Too many clicks: again in ")

    WebDriverWait(browser, PATIENCE_SECONDS, poll_frequency=0.05).until(click_and_look)


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(browser: Browser, address: str, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(address)
    content, room, window = browser.execute_script(
        "const root = document.documentElement;"
        "return [root.scrollWidth, root.clientWidth, window.innerWidth]"
    )
    assert window == width
    assert content == room
