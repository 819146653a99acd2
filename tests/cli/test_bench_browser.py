"""What `bench --device browser` shows before the page is open."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from morvit_deploy.cli.shared import browser
from morvit_deploy.machine import extras
from morvit_deploy.measuring.browser.options import Invitation

PHONE = Invitation(("http://192.168.1.5:8000/token/", "http://172.17.0.1:8000/token/"), listens=True)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), force_terminal=True)
    monkeypatch.setattr(browser, "stderr", lambda: console)


def test_the_url_stands_alone_where_it_is_piped(capsys: pytest.CaptureFixture[str]) -> None:
    browser.show(Invitation(("http://127.0.0.1:8000/token/",), listens=False))
    assert (
        capsys.readouterr().err == "open in a browser on this machine, once: http://127.0.0.1:8000/token/\n"
    )


@pytest.mark.usefixtures("terminal")
def test_without_segno_the_line_that_installs_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "is_missing", lambda module: module == "segno")
    browser.show(PHONE)
    first, second, third = capsys.readouterr().err.splitlines()
    assert first.endswith("once: http://192.168.1.5:8000/token/") and "172.17.0.1" in second
    assert third == 'note: run `pip install "morvit-deploy[browser]"` to see it as a QR code'


@pytest.mark.usefixtures("terminal")
def test_the_code_is_dark_on_light(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("segno")
    browser.show(PHONE)
    code = capsys.readouterr().err.splitlines()[2:]
    assert len(code) > 12 and all(line.startswith(browser.WHITE_ON_BLACK) for line in code)
    assert len({len(line) for line in code}) == 1 and "█" in code[0] and len(code[0]) < 80
