"""Downloads over loopback: whole, cut off, resumed, changed in between, refused."""

import hashlib
import os
import socket

import pytest

from nano_llama.core.errors import EnvironmentFault, FormatError
from nano_llama.data.download import check_sha256, download

DATA = os.urandom(700_000)
CHECK = check_sha256(hashlib.sha256(DATA).hexdigest())


def fetch(server, tmp_path, check=CHECK, name="/file", **options):
    return download(server.url + name, tmp_path / "cache" / "file", check, what="a test file", **options)


def test_a_file_arrives_and_is_not_fetched_twice(server, tmp_path):
    server.files["/file"] = DATA
    seen = []
    path = fetch(server, tmp_path, progress=lambda what, done, total: seen.append((what, done, total)))
    assert path.read_bytes() == DATA
    assert seen[-1] == ("downloading a test file", len(DATA), len(DATA))
    assert [done for _, done, _ in seen] == sorted({done for _, done, _ in seen})
    fetch(server, tmp_path)
    assert len(server.asked) == 1
    assert sorted(p.name for p in path.parent.iterdir()) == ["file", "file.lock"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_connection_that_breaks_is_taken_up_again(server, tmp_path, ranges):
    server.files["/file"], server.ranges = DATA, ranges
    server.cut["/file"] = 300_000
    assert fetch(server, tmp_path).read_bytes() == DATA
    assert server.asked == [("/file", None), ("/file", "bytes=300000-")]


def test_a_partial_download_is_continued(server, tmp_path):
    server.files["/file"] = DATA
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "file.part").write_bytes(DATA[:123_456])
    assert fetch(server, tmp_path).read_bytes() == DATA
    assert server.asked == [("/file", "bytes=123456-")]


@pytest.mark.parametrize("left", [DATA, DATA + b"more", b"x" * 1000])
def test_a_partial_file_is_checked_by_its_checksum(server, tmp_path, left):
    server.files["/file"] = DATA
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "file.part").write_bytes(left)
    assert fetch(server, tmp_path).read_bytes() == DATA


def test_a_server_without_lengths(server, tmp_path):
    server.files["/file"], server.lengths = DATA, False
    seen = []
    assert fetch(server, tmp_path, progress=lambda *a: seen.append(a)).read_bytes() == DATA
    assert seen[-1][1:] == (len(DATA), None)


def test_a_wrong_checksum_is_refused_and_leaves_nothing(server, tmp_path):
    server.files["/file"] = DATA[:-1] + b"!"
    with pytest.raises(FormatError, match="SHA-256") as error:
        fetch(server, tmp_path)
    assert hashlib.sha256(DATA).hexdigest() in str(error.value)
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["file.lock"]


def test_not_found_names_the_next_step(server, tmp_path):
    with pytest.raises(EnvironmentFault, match="404") as error:
        fetch(server, tmp_path, instead="Use stdlib.")
    assert "Use stdlib." in str(error.value) and "/file" in str(error.value)
    assert len(server.asked) == 1  # asking again would not help


def test_a_server_in_trouble_is_asked_three_times(server, tmp_path):
    server.status["/file"] = 503
    with pytest.raises(EnvironmentFault, match="503"):
        fetch(server, tmp_path)
    assert len(server.asked) == 3


def test_a_connection_that_always_breaks_keeps_what_came(server, tmp_path):
    server.files["/file"] = DATA

    class Always(dict):
        def pop(self, key, default=None):
            return 100_000

    server.cut = Always()
    with pytest.raises(EnvironmentFault, match="300,000 bytes"):
        fetch(server, tmp_path)
    server.cut = {}
    assert fetch(server, tmp_path).read_bytes() == DATA
    assert server.asked[-1] == ("/file", "bytes=300000-")


def test_a_refused_connection_is_an_environment_fault(server, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(EnvironmentFault, match="Cannot download a test file"):
        download(f"http://127.0.0.1:{port}/x", tmp_path / "x", CHECK, what="a test file")


@pytest.mark.parametrize("url", ["nonsense", "http://", "http://[::1", "gopher://host/x"])
def test_an_address_that_is_none(server, tmp_path, url):
    with pytest.raises(EnvironmentFault, match="Cannot download"):
        download(url, tmp_path / "x", CHECK, what="a test file")


def test_too_large(server, tmp_path):
    server.files["/file"] = DATA
    with pytest.raises(EnvironmentFault, match="larger than 1,000 bytes"):
        fetch(server, tmp_path, max_bytes=1000)


@pytest.mark.parametrize("variable", ["NANO_LLAMA_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_opens_no_connection(server, tmp_path, monkeypatch, variable):
    server.files["/file"] = DATA
    monkeypatch.setenv(variable, "1")
    with pytest.raises(EnvironmentFault, match="access is disabled") as error:
        fetch(server, tmp_path, instead="Use stdlib.")
    assert "Use stdlib." in str(error.value)
    assert server.asked == []
    (tmp_path / "cache").mkdir(exist_ok=True)
    (tmp_path / "cache" / "file").write_bytes(b"fetched earlier")
    assert fetch(server, tmp_path).read_bytes() == b"fetched earlier"


def test_a_folder_that_cannot_be_written(server, tmp_path):
    server.files["/file"] = DATA
    (tmp_path / "cache").write_text("a file is in the way")
    with pytest.raises(EnvironmentFault, match="Cannot write"):
        fetch(server, tmp_path)
