"""The server of the page: who is let in, and what is served."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_page import FakePage, fetch

from morvit_deploy.errors import TargetError
from morvit_deploy.measuring.browser.address import invitation, ordered
from morvit_deploy.measuring.browser.server import PageServer, Served, serving


@pytest.fixture
def server() -> Iterator[PageServer]:
    files = {
        "index.html": Served(b"<p>page"),
        "0/manifest.json": Served(b"{}"),
        "ort/a.wasm": Served(b"", fixed=True),
    }
    with serving(files) as running:
        yield running


def url_of(server: PageServer) -> str:
    return invitation(server, listens=False, secure=False).urls[0]


def test_only_listed_files_below_the_token(server: PageServer) -> None:
    url = url_of(server)
    status, body, headers = fetch(url)
    assert (status, body) == (200, b"<p>page") and headers["Content-Type"].startswith("text/html")
    assert fetch(url, "0/manifest.json")[0] == 200
    for name in (
        "0/",
        "0",
        "../",
        "..%2f",
        "0/../../x",
        "/etc/passwd",
        "//etc/passwd",
        "0/weights.bin",
        "%00",
    ):
        assert fetch(url, name)[0] == 404, name


@pytest.mark.parametrize(
    "path", ["/", "/index.html", "/0/manifest.json", "/x/", "/%C3%A9/", "/TOKEN", "//", "/%"]
)
def test_without_the_token_nothing_is_served(server: PageServer, path: str) -> None:
    wrong = path.replace("TOKEN", server.token[:-1])
    status, body, _ = fetch(f"http://127.0.0.1:{server.port}", wrong)
    assert status == 403 and b"This link is not valid" in body


def test_pages_are_isolated_and_tokens_stay_here(server: PageServer) -> None:
    _, _, headers = fetch(url_of(server))
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert headers["Referrer-Policy"] == "no-referrer" and headers["Cache-Control"] == "no-store"
    assert "max-age" in fetch(url_of(server), "ort/a.wasm")[2]["Cache-Control"]


def test_a_link_works_once(server: PageServer, tmp_path: Path) -> None:
    first, second = FakePage(tmp_path), FakePage(tmp_path)
    first.url = second.url = url_of(server)
    status, headers = first.post("hello", first.about)
    first.cookie = headers["Set-Cookie"].partition(";")[0]
    assert status == 200 and "HttpOnly; SameSite=Strict" in headers["Set-Cookie"]
    assert first.get("")[0] == 200
    assert second.post("hello", second.about)[0] == 403
    assert second.get("")[0] == second.get("0/manifest.json")[0] == 403
    second.cookie = first.cookie[:-1]
    assert second.get("")[0] == 403
    first.url = first.url.replace(server.token, "another")
    assert first.get("")[0] == 403, "the cookie alone is not enough"


@pytest.mark.parametrize("body", [[], "text", None], ids=str)
def test_messages_that_no_page_sends(server: PageServer, tmp_path: Path, body: object) -> None:
    page = FakePage(tmp_path)
    page.url = url_of(server)
    assert page.post("hello", body)[0] == 400
    assert page.post("hello", page.about)[0] == 200, "and the link still works"


def test_a_page_that_closes_is_noticed(server: PageServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(f"GET /{server.token}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert server.page.wait(5) and server.page.is_open
    begun = time.monotonic()
    while server.page.is_open and time.monotonic() - begun < 5:
        time.sleep(0.05)
    assert not server.page.is_open and time.monotonic() - begun < 3


def test_a_port_in_use(server: PageServer) -> None:
    with pytest.raises(TargetError, match=rf"cannot listen on port {server.port} .* give another --port"), \
        serving({}, port=server.port):  # fmt: skip
        pass


def test_only_loopback_is_bound_unless_it_listens(server: PageServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    with serving({}, listen=True) as everywhere:
        assert everywhere.server_address[0] == "0.0.0.0"


def test_the_route_to_the_internet_is_shown_first() -> None:
    found = ["127.0.0.1", "172.17.0.1", "169.254.3.4", "192.168.1.5", "192.168.1.5"]
    assert ordered(found, "192.168.1.5") == ["192.168.1.5", "172.17.0.1"]
    assert ordered(found, None) == ["172.17.0.1", "192.168.1.5"]


def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "cert.pem"
    file.write_text("no certificate")
    for certificate in (file, tmp_path / "missing.pem"):
        with pytest.raises(TargetError, match=r"expected a PEM file with a certificate and its private key"), \
            serving({}, certificate=certificate):  # fmt: skip
            pass


def test_https(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    try:
        subprocess.run(
            [*words, "-keyout", key, "-out", certificate, "-subj", "/CN=here", "-days", "1"],
            check=True, capture_output=True,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    certificate.write_text(certificate.read_text() + key.read_text())
    import ssl
    import urllib.request

    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    with serving({"index.html": Served(b"page")}, certificate=certificate) as running:
        url = invitation(running, listens=False, secure=True).urls[0]
        assert url.startswith("https://")
        with urllib.request.urlopen(url, context=context) as reply:
            assert reply.read() == b"page"
