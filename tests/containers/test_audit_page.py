"""The audit page in a real browser: searched by keyboard, in both themes, silent console, no request but for itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.audit.page import write_page
from tests.audit.browser import Browser, browser, is_ready, until
from tests.audit.made import made_data, made_view
from tests.containers.project import BUILD, CHECKOUT, OUTSIDE

pytestmark = pytest.mark.docker

IMAGE = "cai-browser"
PAGE = "file:///page/audit.html"
HOSTILE = (
    "</script><script>window.attacked = 1</script><img src=http://evil.example/x.png onerror='window.attacked = 1'>"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a page of sixty prompts, and a pair that is hostile in every text."""
    folder = tmp_path_factory.mktemp("page")
    folder.chmod(0o755)
    data = made_data(60)
    data.pairs[0] = replace(data.pairs[0], prompt=HOSTILE, chosen=HOSTILE, rejected=HOSTILE)
    write_page(folder / "audit.html", made_view(replace(data, name=f"made {HOSTILE}")))
    (folder / "audit.html").chmod(0o644)
    return folder


@pytest.fixture(scope="module")
def driver(engine: Any, page: Path) -> Iterator[str]:
    """The address of a chromedriver in a container that sees only the page."""
    command = ["docker", "build", "-q", "-f", "docker/browser.Dockerfile", "-t", IMAGE]
    base = os.environ.get("CAI_BASE") or BUILD.get("CAI_BASE")
    arguments = ["--build-arg", f"BASE={base}"] if base else []
    subprocess.run([*command, *arguments, "docker"], cwd=CHECKOUT, env=OUTSIDE | BUILD, check=True)
    container = engine.containers.run(
        IMAGE,
        detach=True,
        ports={"9515/tcp": ("127.0.0.1", None)},
        volumes={str(page): {"bind": "/page", "mode": "ro"}},
        read_only=True,
        tmpfs={"/tmp": "exec,mode=1777"},
        cap_drop=["ALL"],
    )
    try:
        container.reload()
        port = container.attrs["NetworkSettings"]["Ports"]["9515/tcp"][0]["HostPort"]
        address = f"http://127.0.0.1:{port}"
        until(lambda: is_ready(address), 60, f"chromedriver: {container.logs().decode()}")
        yield address
    finally:
        container.remove(force=True)


@pytest.fixture
def opened(driver: str) -> Iterator[Browser]:
    """The page in a fresh browser; afterwards nothing may have gone wrong in it."""
    with browser(driver) as session:
        session.open(PAGE)
        yield session
        assert [entry for entry in session.log("browser") if entry["level"] in {"SEVERE", "WARNING"}] == []
        assert {url for url in session.requested() if not url.startswith(("data:", "blob:"))} == {PAGE}
        assert session.run("return window.attacked") is None


def text_of(opened: Browser, css: str) -> str:
    return str(opened.run("return document.querySelector(arguments[0]).innerText", css))


def test_a_row_is_found_opened_and_let_go_by_keyboard_alone(opened: Browser) -> None:
    opened.press("/")
    assert opened.run("return document.activeElement.id") == "search"
    opened.press(*"town 47")
    assert text_of(opened, "#row-count") == "1 row matches."
    opened.press("enter")
    assert "Question 47 about taxes in town 47?" in text_of(opened, "#row-detail")
    assert opened.run("return [...document.querySelectorAll('#row-detail mark')].map((one) => one.textContent)")
    opened.press("escape")
    assert opened.run("return document.activeElement.value") == ""
    assert text_of(opened, "#row-count") == "61 rows match, 36 listed."


def test_arrows_move_the_choice_and_screen_readers_are_told(opened: Browser) -> None:
    opened.press("/", *"careful", "down", "down", "up")
    chosen = opened.run("return document.getElementById('search').getAttribute('aria-activedescendant')")
    assert chosen == "option-1"
    assert opened.run("return document.querySelectorAll('#row-list [aria-selected=true]').length") == 1
    opened.press("enter")
    shown = opened.run("return document.getElementById('option-1').querySelector('b').textContent")
    assert shown in text_of(opened, "#row-detail")


def test_the_theme_switches_and_is_remembered(opened: Browser) -> None:
    paper = "return getComputedStyle(document.body).backgroundColor"
    before = opened.run(paper)
    opened.click("#theme")
    assert opened.run(paper) != before
    opened.open(PAGE)
    assert opened.run(paper) != before
    opened.click("#theme")
    assert opened.run(paper) == before


def test_the_label_audit_counts_agreement_and_kappa(opened: Browser) -> None:
    labels = opened.run("return JSON.parse(document.getElementById('label-data').textContent).map((one) => one.label)")
    answers = [label if number % 5 else "AB".replace(label, "") for number, label in enumerate(labels)]
    for number, answer in enumerate(answers):
        opened.run(
            "document.querySelectorAll('#label-list article')[arguments[0]]"
            ".querySelector(`[data-choice=${arguments[1]}]`).click()",
            number,
            answer,
        )
    agreed = sum(mine == theirs for mine, theirs in zip(answers, labels, strict=True))
    kappa = cohens_kappa(answers, labels)
    score = text_of(opened, "#label-score")
    assert f"30 of 30 answered. You agree with the data on {agreed} of 30 (80 %), 0 ties" in score
    assert f"κ {kappa:.2f}" in score


def cohens_kappa(mine: list[str], theirs: list[str]) -> float:
    """Cohen 1960, as the textbook has it."""
    both = len(mine)
    agree = sum(one == other for one, other in zip(mine, theirs, strict=True)) / both
    chance = sum(mine.count(name) / both * theirs.count(name) / both for name in "AB")
    return (agree - chance) / (1 - chance)


def test_a_malformed_row_is_one_click_away(opened: Browser) -> None:
    opened.click('a[href="#row=pairs-0"]')
    until(lambda: "window.attacked = 1" in text_of(opened, "#row-detail"), 10, "the row of the link")
    assert "meta_talk" in text_of(opened, "#row-detail")


def test_nothing_is_wider_than_a_phone(driver: str) -> None:
    with browser(driver, "--window-size=400,900") as session:
        session.open(PAGE)
        width = session.run("return [document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= width[1]
