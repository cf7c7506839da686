"""Hub names against a loopback server that answers as the Hugging Face hub does: no network is used."""

import hashlib
import http.server
import json
import threading
from pathlib import Path

import pytest

from nano_llama.core.errors import EnvironmentFault, UserError
from nano_llama.formats import open_weights, read_config, resolve_model, save_gguf, save_hf
from nano_llama.formats.hub import download, is_hub_name

pytest.importorskip("huggingface_hub")

OLD, NEW = "a" * 40, "b" * 40


class FakeHub:
    """Repositories as {name: {commit: {path: bytes}}}; `main` is the last commit; counts what was asked for."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.asked: list[str] = []
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.asked.append(f"{self.command} {self.path.split('?')[0]}")
                status, body, headers = hub.answer(self.path.split("?")[0])
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        parts = path.strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        name = "/".join(parts[2:4] if api else parts[:2])
        if name == "org/gated":
            return 403, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "accept the licence"}
        if name not in self.repos:
            return 404, b"{}", {"X-Error-Code": "RepoNotFound"}
        commits = self.repos[name]
        if api:
            revision = parts[5] if len(parts) > 5 else "main"
        else:
            revision = parts[3]
        commit = list(commits)[-1] if revision == "main" else revision
        if commit not in commits:
            return 404, b"{}", {"X-Error-Code": "RevisionNotFound"}
        files = commits[commit]
        if api and len(parts) > 4 and parts[4] == "tree":
            tree = [
                {"type": "file", "path": path, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
                for path, body in files.items()
            ]
            return 200, json.dumps(tree).encode(), {"Content-Type": "application/json"}
        if api:
            siblings = [{"rfilename": path} for path in files]
            info = {"id": name, "sha": commit, "siblings": siblings, "tags": [], "private": False, "downloads": 0}
            return 200, json.dumps(info).encode(), {"Content-Type": "application/json"}
        body = files.get("/".join(parts[4:]))
        if body is None:
            return 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}
        return 200, body, {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(body).hexdigest()}"'}


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def save_split_gguf(path: Path, config, weights) -> None:
    gguf = pytest.importorskip("gguf")
    save_gguf(path, config, weights, dtype="F32")
    whole = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=8)
    for field in whole.fields.values():
        if field.name.startswith("llama."):
            writer.add_key_value(field.name, field.contents(), field.types[0])
    for tensor in whole.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    path.unlink()
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def old_files(folder: Path, config, weights) -> dict[str, bytes]:
    torch = pytest.importorskip("torch")
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config.to_hf_dict()))
    torch.save({name: torch.from_numpy(array) for name, array in weights.items()}, folder / "pytorch_model.bin")
    return files_of(folder)


@pytest.fixture(scope="module")
def hub(tmp_path_factory, tiny_config):
    from nano_llama.core.init import init_params

    base, fake = tmp_path_factory.mktemp("hub"), FakeHub()
    config = tiny_config(initializer_range=0.02)
    for seed, commit in enumerate((OLD, NEW)):
        save_hf(base / commit, config, init_params(config, seed=seed), max_shard_bytes=60_000)
    extras = {"original/consolidated.00.pth": b"x" * 100, "pytorch_model.bin": b"x" * 100, "README.md": b"hello"}
    fake.repos["org/tiny"] = {OLD: files_of(base / OLD), NEW: {**files_of(base / NEW), **extras}}
    save_gguf(base / "m.gguf", config, init_params(config), dtype="F32")
    fake.repos["org/quants"] = {OLD: {"tiny.gguf": (base / "m.gguf").read_bytes(), "config.json": b"{}"}}
    save_split_gguf(base / "s.gguf", config, init_params(config))
    fake.repos["org/split"] = {OLD: {f"sub/{file.name}": file.read_bytes() for file in base.glob("s-*.gguf")}}
    fake.repos["org/old"] = {OLD: {**old_files(base / "old", config, init_params(config)), "README.md": b"hello"}}
    fake.repos["org/nothing"] = {OLD: {"README.md": b"hello"}}
    yield fake
    fake.server.shutdown()


@pytest.fixture
def get(hub, tmp_path, monkeypatch):
    """download() against the loopback server, with a cache of its own."""
    import huggingface_hub.constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    hub.asked.clear()

    def make(name: str, revision: str | None = None, **changes) -> Path:
        options = {"progress": False, "endpoint": hub.url, "cache_dir": tmp_path / "cache", **changes}
        return download(name, revision, **options)

    return make


def test_a_model_by_its_name(get, hub, tiny_config):
    folder = get("org/tiny")
    assert read_config(folder) == tiny_config(initializer_range=0.02)
    assert len(open_weights(folder)) == 21
    names = {file.name for file in folder.rglob("*") if file.is_file()}
    assert "model.safetensors.index.json" in names
    assert not names & {"pytorch_model.bin", "consolidated.00.pth", "README.md"}  # the same weights again, or none


def test_a_revision_pins_the_bytes(get, hub):
    old, new = get("org/tiny", OLD), get("org/tiny")
    shard = min(name for name in hub.repos["org/tiny"][OLD] if name.endswith(".safetensors"))
    assert (old / shard).read_bytes() == hub.repos["org/tiny"][OLD][shard]
    assert (new / shard).read_bytes() == hub.repos["org/tiny"][NEW][shard] != (old / shard).read_bytes()
    assert get(f"org/tiny@{OLD}") == old


def test_what_is_in_the_cache_is_not_fetched_again(get, hub):
    first = get("org/tiny")
    hub.asked.clear()
    assert get("org/tiny") == first
    assert not [line for line in hub.asked if line.startswith("GET") and "safetensors" in line]


def test_offline_the_cache_serves_and_nothing_is_asked(get, hub, monkeypatch):
    first = get("org/tiny")
    hub.asked.clear()
    monkeypatch.setenv("NANO_LLAMA_OFFLINE", "1")
    assert get("org/tiny") == first
    with pytest.raises(EnvironmentFault, match=r"org/quants is not a local path.*switched off"):
        get("org/quants")
    assert hub.asked == []


def test_a_gguf_file_of_a_repository(get):
    path = get("org/quants/tiny.gguf")
    assert path.name == "tiny.gguf"
    assert len(open_weights(path)) == 21


@pytest.mark.parametrize("part", [1, 2])
def test_a_split_gguf_comes_with_all_its_parts(get, part):
    path = get(f"org/split/sub/s-{part:05d}-of-00003.gguf")
    assert path.name == "s-00001-of-00003.gguf"
    assert len(open_weights(path)) == 21


def test_a_repository_of_pytorch_model_bin(get):
    assert len(open_weights(get("org/old"))) == 21


def test_a_repository_of_ggufs_says_which(get):
    with pytest.raises(UserError, match=r"org/quants/tiny\.gguf"):
        get("org/quants")


@pytest.mark.parametrize(
    ("name", "revision", "error", "words"),
    [
        ("org/ghost", None, UserError, "org/ghost"),
        ("org/gated", None, UserError, "gated"),
        ("org/tiny", "v9", UserError, "v9"),
        ("org/tiny/other.gguf", None, UserError, r"other\.gguf"),
        ("org/nothing", None, UserError, "no weights in safetensors"),
    ],
)
def test_what_the_hub_does_not_have_is_named(get, name, revision, error, words):
    with pytest.raises(error, match=words):
        get(name, revision)


def test_a_hub_out_of_reach(get):
    with pytest.raises(EnvironmentFault, match=r"org/tiny is not a local path.*cannot be reached"):
        get("org/tiny", endpoint="http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("name", "says"), [("runs/frist", "Did you mean runs/first?"), ("runs/mine", "The folder runs holds: first, rates")]
)
def test_a_mistyped_run_shows_what_lies_beside_it(tmp_path, monkeypatch, name, says):
    monkeypatch.setenv("NANO_LLAMA_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    for run in ("first", "rates", ".cache"):
        (tmp_path / "runs" / run).mkdir(parents=True)
    with pytest.raises(EnvironmentFault, match=f"{name} is not a local path") as caught:
        resolve_model(name)
    assert caught.value.hint.startswith(says + "\n")


def test_progress_shows_on_stderr_or_not_at_all(get, capfd, tmp_path):
    get("org/tiny")
    assert capfd.readouterr() == ("", "")
    get("org/tiny", progress=True, cache_dir=tmp_path / "other")
    out, err = capfd.readouterr()
    assert out == ""
    assert "model-00001" in err or "Fetching" in err


@pytest.mark.parametrize(
    "name", ["org/name", "org/na-me_1.5", "org/name@main", "org/name/sub/file.Q4_0.gguf", "o/n/f.gguf@v1"]
)
def test_hub_names(name):
    assert is_hub_name(name)


@pytest.mark.parametrize(
    "name", ["name", "org/", "/org/name", "org/name/file.bin", "../name", "org/..", "a/b/c/d", "C:\\x", "org/n ame"]
)
def test_no_hub_names(name):
    assert not is_hub_name(name)


def test_a_local_path_wins_over_a_hub_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "tiny").mkdir(parents=True)
    assert resolve_model("org/tiny") == Path("org/tiny")
