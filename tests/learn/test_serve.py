"""`learn --serve`: pages with the token only, code from its own pages only; cells run in order, within their limits."""

import json
import threading
from http.client import HTTPConnection

import pytest

from nano_llama.core.errors import UserError
from nano_llama.learn import cells
from nano_llama.learn.serve import HOST, MAX_REQUEST_BYTES, SCRIPT, BookServer

PAGE = "<!doctype html><html><head><title>Page</title></head><body><p>Hello</p></body></html>"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    site = tmp_path_factory.mktemp("site") / "html"
    (site / "chapters").mkdir(parents=True)
    (site / "index.html").write_text(PAGE)
    (site / "chapters" / "01.html").write_text(PAGE)
    (site / "style.css").write_text("p {}")
    (site.parent / "secret.txt").write_text("secret")
    (site / "link.txt").symlink_to(site.parent / "secret.txt")
    with BookServer(site, run_seconds=3) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.fixture
def ask(server):
    """ask(method, path, ...) -> status, headers, body. Headers are a browser's, or as given (None: left out)."""

    def ask(method, path, body=None, **changed):
        headers = {"Host": f"{HOST}:{server.server_port}"}
        if method == "POST":
            headers |= {"Origin": server.origin, "Content-Type": "application/json", "Content-Length": str(len(body))}
        headers |= {name.replace("_", "-"): text for name, text in changed.items()}
        connection = HTTPConnection(HOST, server.server_port, timeout=60)
        connection.putrequest(method, path, skip_host=True)
        for name, text in headers.items():
            if text is not None:
                connection.putheader(name, text)
        connection.endheaders(body)
        answer = connection.getresponse()
        found = answer.status, dict(answer.getheaders()), answer.read()
        connection.close()
        return found

    return ask


@pytest.fixture
def run(server, ask):
    def run(*codes, **changed):
        sent = [{"name": f"c{number}", "code": code} for number, code in enumerate(codes)]
        status, _, body = ask("POST", f"/{server.token}/run", json.dumps({"cells": sent}).encode(), **changed)
        return json.loads(body) if status == 200 else status

    return run


def test_pages_come_with_the_script_that_runs_cells(server, ask):
    for path in ("/index.html", "/", "/chapters/01.html", "/chapters/01.html?x=1"):
        status, headers, body = ask("GET", f"/{server.token}{path}")
        assert status == 200
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert f'<script src="/{server.token}/run.js" defer></script></body>'.encode() in body
        assert headers["Referrer-Policy"] == "no-referrer"
    assert ask("GET", f"/{server.token}/run.js")[2] == SCRIPT.read_bytes()
    assert ask("GET", f"/{server.token}/style.css")[1]["Content-Type"] == "text/css; charset=utf-8"
    status, headers, body = ask("HEAD", f"/{server.token}/index.html")
    assert (status, body) == (200, b"")


@pytest.mark.parametrize("path", ["/", "/index.html", "/run", "/wrong/index.html", "//index.html", "/%00"])
def test_nothing_without_the_token(ask, path):
    status, _, body = ask("GET", path)
    assert status == 404
    assert b"token" in body


@pytest.mark.parametrize(
    "path",
    ["../secret.txt", "%2e%2e/secret.txt", "chapters/../../secret.txt", "link.txt", "chapters", "%00", "x" * 5000],
)
def test_nothing_outside_the_book(server, ask, path):
    status, _, body = ask("GET", f"/{server.token}/{path}")
    assert status == 404
    assert b"secret" not in body


@pytest.mark.parametrize("host", ["example.com", "localhost:1", HOST, None])
def test_another_host_name_is_refused(server, ask, run, host):
    assert ask("GET", f"/{server.token}/index.html", Host=host)[0] == 403
    assert run("print(1)", Host=host) == 403


def test_only_its_own_pages_may_run_code(server, run):
    for origin in ("http://example.com", "null", f"http://localhost:{server.server_port}", None):
        assert run("print(1)", Origin=origin) == 403
    assert run("print(1)", Content_Type="text/plain") == 415, "a form of another page could send it"


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"[]", 400), (b'{"cells": 3}', 400), (b'{"cells": [{"name": "x"}]}', 400), (b"[" * 100_000, 400)],
)
def test_what_is_not_a_request_is_refused(server, ask, body, status):
    assert ask("POST", f"/{server.token}/run", body)[0] == status


def test_bodies_have_a_limit(server, ask):
    assert ask("POST", f"/{server.token}/run", b"", Content_Length=str(MAX_REQUEST_BYTES + 1))[0] == 413
    assert ask("POST", f"/{server.token}/run", b"", Content_Length=None)[0] == 411
    assert ask("POST", f"/{server.token}/run", b"", Content_Length="-1")[0] == 411


def test_the_last_cell_answers_after_those_above_it(run):
    assert run("x = 2\nprint('above')", "print(x + 3)") == {"printed": "5\n", "error": None, "picture": None}
    assert "NameError" in run("print(x)")["error"], "each run begins anew"


def test_an_error_shows_the_cells_lines_only(run):
    found = run("print('before')\ndef f():\n    return 1 / 0", "f()")
    assert found["printed"] == ""
    assert found["error"].splitlines()[1] == '  File "<cell c1>", line 1, in <module>'
    assert "return 1 / 0" in found["error"]
    assert found["error"].splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert "SyntaxError" in run("print(")["error"]


def test_a_cell_that_hangs_or_crashes_is_stopped_and_the_next_runs(run):
    assert run("while True: pass")["error"] == "Stopped after 3 seconds."
    assert "status 7" in run("import os; os._exit(7)")["error"]
    assert run("print(1)")["printed"] == "1\n"


def test_what_a_library_prints_to_the_descriptor_does_not_break_the_answer(run):
    assert run("import os; os.write(1, b'raw'); print('fine')")["printed"] == "fine\n"


def test_a_picture_comes_back():
    above = {"name": "above", "code": "from matplotlib import pyplot\npyplot.plot([3, 1, 2])"}
    assert "<svg" in cells.answer([above])["picture"]
    assert cells.answer([above, {"name": "last", "code": "print(1)"}]) == {
        "printed": "1\n",
        "error": None,
        "picture": None,
    }


def test_the_token_is_new_each_time_and_long(server):
    with BookServer(server.site) as other:
        assert other.token != server.token
        assert len(other.token) >= 32
        assert other.server_address[0] == "127.0.0.1"


def test_no_book_and_a_port_that_is_taken(server, tmp_path):
    with pytest.raises(UserError, match="no built book"):
        BookServer(tmp_path)
    for port in (server.server_port, 65_536):
        with pytest.raises(UserError, match="cannot be used"):
            BookServer(server.site, port=port)
