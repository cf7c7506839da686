"""The files of the page (nano_llama/server/page_files.py): sent as they are, cached by tag, under a strict policy."""

import re

import pytest
from starlette.testclient import TestClient

from nano_llama.server import page_files
from nano_llama.server.app import create_app
from nano_llama.server.auth import digest_of
from nano_llama.server.page_files import FOLDER, read_page
from nano_llama.server.service import Service
from nano_llama.server.settings import ServerSettings


def page(**settings) -> TestClient:
    """Of a server whose model is still being loaded."""
    app = create_app(Service(ServerSettings(**settings), ["tiny"]))
    return TestClient(app, base_url="http://localhost", raise_server_exceptions=False)


def test_every_file_is_sent_as_it_is_where_compression_is_not_accepted():
    client = page()
    client.headers["accept-encoding"] = "identity"
    assert client.get("/").content == (FOLDER / "index.html").read_bytes()
    for name in read_page():
        answer = client.get(f"/page/{name}")
        assert answer.status_code == 200 and answer.content == (FOLDER / name).read_bytes(), name
        assert answer.headers["content-type"] == page_files.TYPES[(FOLDER / name).suffix]


def test_compressed_it_lacks_comments_alone():
    """Every line of code is there, at its number: what a browser's console names is found in the file."""
    client, comment = page(), False
    for name in read_page():
        sent, lines = client.get(f"/page/{name}").text.split("\n"), (FOLDER / name).read_text().split("\n")
        assert len(sent) == len(lines), name
        for got, line in zip(sent, lines, strict=True):
            bare = line.strip(" \t") if not name.endswith((".html", ".svg")) else line
            comment = comment or bare.startswith("/*")
            left = "" if comment or bare.startswith("//") else bare
            remark = re.fullmatch(r"""\s*// [^'"`]*|""", left.removeprefix(got.strip(" \t")))
            assert left.startswith(got.strip(" \t")) and remark and bool(got.strip()) == bool(left), (name, line)
            assert not (name.endswith(".js") and bare.count("`") % 2) or comment, f"{name}: a text of two lines: {line}"
            comment = comment and "*/" not in bare


def test_no_file_is_left_out():
    """A kind that TYPES lacks would be missing on the page only."""
    files = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file()}
    assert files == set(read_page())


def test_all_that_the_first_file_names_is_there():
    names = re.findall(r'(?:src|href)="([^"#]+)"', (FOLDER / "index.html").read_text())
    assert names and all(name.removeprefix("page/") in read_page() for name in names)


def test_all_that_the_first_view_needs_is_named_at_once():
    links = page().get("/").headers["link"]
    named = re.findall(r"<page/([^>]+\.js)>; rel=modulepreload", links)
    assert "views/writers.js" in named and "views/depth.js" not in named and len(set(named)) == len(named)
    for name in named:
        folder, source = (FOLDER / name).parent, (FOLDER / name).read_text()
        for path in re.findall(r'from "(.+)"|import "(.+)"', source):
            assert (folder / "".join(path)).resolve().relative_to(FOLDER).as_posix() in named
    assert "<page/page.css>; rel=preload; as=style" in links
    assert "link" not in page().get("/page/main.js").headers


def test_it_is_there_without_a_key_and_while_the_model_loads(monkeypatch):
    monkeypatch.setattr("nano_llama.server.app.PATIENCE_SECONDS", 0.1)
    client = page(api_key_digests=(digest_of("key-1"),))
    assert [client.get(path).status_code for path in ("/", "/page/main.js", "/health")] == [200, 200, 503]
    assert client.get("/inspect/model").status_code == 401
    assert client.get("/inspect/model", headers={"authorization": "Bearer key-1"}).status_code == 503


def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere():
    for path in ("/", "/page/main.js"):
        policies = page().get(path).headers.get_list("content-security-policy")
        assert len(policies) == 1, "two policies would both hold"
        rules = dict(rule.split(" ", 1) for rule in policies[0].split("; "))
        assert rules["default-src"] == "'none'" and rules["script-src"] == rules["connect-src"] == "'self'"
        assert "unsafe" not in policies[0] and "http" not in policies[0] and "*" not in policies[0]
        assert rules["require-trusted-types-for"] == "'script'"
    html = (FOLDER / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", html), "the policy would block it"


def test_a_browser_that_has_the_file_gets_304():
    client = page()
    first = client.get("/page/main.js")
    tag = first.headers["etag"]
    again = client.get("/page/main.js", headers={"if-none-match": f'"other", W/{tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.get("/page/main.js", headers={"if-none-match": '"other"'}).status_code == 200
    plain = client.get("/page/main.js", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers and plain.headers["etag"] != tag


@pytest.mark.parametrize(
    "path",
    ["/page/", "/page/none.js", "/page/..%2fapp.py", "/page/%2e%2e/app.py", "/page//etc/passwd",
     "/page/index.html%00.js", "/page/index.html/", "/page/INDEX.HTML", "/page/views", "/page/" + "x" * 5000],
)  # fmt: skip
def test_no_other_path_leads_to_a_file(path):
    answer = page().get(path)
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "unknown_url"
    assert "default-src 'none'; frame-ancestors" in answer.headers["content-security-policy"]


def test_files_are_read_only():
    assert page().post("/page/main.js").status_code == 405
    head = page().head("/")
    assert head.status_code == 200 and head.content == b""


def test_without_the_page_there_is_none():
    client = page(page=False)
    assert client.get("/").status_code == 404
    assert client.get("/page/main.js").status_code == 404
