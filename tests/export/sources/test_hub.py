"""Models of a hub are exported; a hub's fault is one line."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from tests.support.checkpoint_files import change_config, shard
from tests.support.model_hub import ModelHub, running_hub
from tests.support.waiting import SECONDS
from transformers import GPT2LMHeadModel

from gpt2flow.export.errors import AdapterError, HubError, InputError
from gpt2flow.export.sources.hub import Hub
from gpt2flow.export.sources.locate import Locator, read_token
from gpt2flow.export.sources.prepare import Origin
from gpt2flow.server.bundle.manifest import HubModel, load_bundle

pytestmark = pytest.mark.process

# What repositories hold besides, for other frameworks and programs.
NEEDLESS = (
    *("README.md", "tf_model.h5", "flax_model.msgpack", "rust_model.ot", "model.onnx", "64.tflite"),
    *("pytorch_model.bin", "optimizer.pt", "training_args.bin"),
)


@pytest.fixture
def hub() -> Iterator[ModelHub]:
    with running_hub() as running:
        yield running


@pytest.fixture
def repository(checkpoint: Path, tmp_path: Path) -> Path:
    """Files of a public model, with weights of other frameworks."""
    directory = shutil.copytree(checkpoint, tmp_path / "repository")
    for name in ("eval.txt", "calibration.txt", "training.json"):
        (directory / name).unlink()
    for name in NEEDLESS:
        (directory / name).write_bytes(b"needless")
    return Path(directory)


class Client:
    """Finder of models on a test's hub, with its own cache."""

    def __init__(self, hub: ModelHub, cache: Path, token: str | None = None) -> None:
        self.hub = hub
        self.warnings: list[str] = []
        self.bytes: list[tuple[int, int]] = []
        self._locator = Locator(
            Hub(token=token, endpoint=hub.address, cache=cache),
            on_bytes=lambda done, total: self.bytes.append((done, total)),
            on_warning=self.warnings.append,
        )

    def locate(self, name: str, revision: str | None = None) -> Path:
        return self._locator.locate(name, revision).directory

    def refusal(self, name: str, revision: str | None = None) -> str:
        with pytest.raises(InputError) as caught:
            self.locate(name, revision)
        assert "\n" not in str(caught.value)
        return str(caught.value)


@pytest.fixture
def client(hub: ModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 1)
    # The client counts whole chunks only, and the files of these tests are small.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return Client(hub, tmp_path / "cache")


def test_only_the_files_that_an_export_reads_are_downloaded(
    hub: ModelHub, client: Client, repository: Path
) -> None:
    commit = hub.add("gpt2", repository)
    directory = client.locate("gpt2")
    assert directory.name == commit
    names = {path.name for path in directory.iterdir()}
    assert names == {path.name for path in repository.iterdir()} - set(NEEDLESS)
    assert all(
        (directory / name).read_bytes() == (repository / name).read_bytes() for name in names
    )
    assert sorted(hub.downloaded()) == sorted(names)
    assert hub.downloaded()[-1] == "model.safetensors"
    size = (repository / "model.safetensors").stat().st_size
    assert client.bytes[-1] == (size, size)


def test_what_is_cached_is_not_downloaded_again(
    hub: ModelHub, client: Client, repository: Path
) -> None:
    hub.add("gpt2", repository)
    directory = client.locate("gpt2")
    hub.requests.clear()
    assert client.locate("gpt2") == directory
    assert hub.downloaded() == []


def test_a_revision_is_downloaded_by_tag_and_by_commit(
    hub: ModelHub, client: Client, repository: Path, tmp_path: Path
) -> None:
    hub.add("org/gpt2", repository)
    older = Path(shutil.copytree(repository, tmp_path / "older"))
    change_config(older, layer_norm_epsilon=1e-3)
    commit = hub.add("org/gpt2", older, revision="v1")
    assert client.locate("org/gpt2", "v1").name == commit
    assert client.locate("org/gpt2", commit).name == commit
    assert client.locate("org/gpt2").name != commit
    assert client.refusal("org/gpt2", "v2") == f"org/gpt2 has no revision 'v2' on {hub.address}"


def test_an_old_id_is_followed_to_the_new_one(
    hub: ModelHub, client: Client, repository: Path
) -> None:
    hub.add("openai-community/gpt2", repository)
    hub.moved["gpt2"] = "openai-community/gpt2"
    assert (client.locate("gpt2") / "config.json").is_file()


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_shards_are_downloaded_by_their_index(
    hub: ModelHub, client: Client, repository: Path, suffix: str
) -> None:
    write: Any = save_file if suffix == ".safetensors" else torch.save
    (repository / "pytorch_model.bin").unlink()
    shard(repository, suffix, write)
    (repository / f"other{suffix}").write_bytes(b"needless")
    hub.add("org/sharded", repository)
    directory = client.locate("org/sharded")
    assert {path.name for path in directory.glob(f"*{suffix}")} == {
        f"part-1{suffix}",
        f"part-2{suffix}",
    }
    assert client.bytes[-1][0] == client.bytes[-1][1] > 0


def test_weights_of_another_architecture_are_not_downloaded(
    hub: ModelHub, client: Client, repository: Path
) -> None:
    change_config(repository, model_type="llama")
    hub.add("org/llama", repository)
    assert "model_type is 'llama'; only 'gpt2' can be exported" in client.refusal("org/llama")
    assert "model.safetensors" not in hub.downloaded()


@pytest.mark.parametrize(
    "missing, message",
    [
        ("config.json", "org/empty on {0} has no config.json, so it is no GPT-2"),
        ("model.safetensors", "org/empty on {0} has no weights: none of model.safetensors, pyt"),
    ],
)
def test_a_repository_without_a_gpt2_is_refused(
    hub: ModelHub, client: Client, repository: Path, missing: str, message: str
) -> None:
    (repository / missing).unlink()
    (repository / "pytorch_model.bin").unlink()
    hub.add("org/empty", repository)
    assert client.refusal("org/empty").startswith(message.format(hub.address))


def test_a_private_model_takes_a_token(
    hub: ModelHub, client: Client, repository: Path, tmp_path: Path
) -> None:
    hub.add("org/private", repository)
    hub.token = "hf_secret"  # noqa: S105 - of this hub
    assert "(HTTP 401); a private one takes a token by HF_TOKEN or --hub-token-file" in (
        client.refusal("org/private")
    )
    (tmp_path / "token").write_text("hf_secret\n")
    holder = Client(hub, tmp_path / "cache", read_token(tmp_path / "token"))
    assert (holder.locate("org/private") / "model.safetensors").is_file()


@pytest.mark.parametrize("content", [b"", b"\n", b"one two", b"one\ntwo", b"\xff\xfe"])
def test_a_file_without_a_token_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(
        InputError, match=r"--hub-token-file .*token (does not hold|cannot be read)"
    ):
        read_token(tmp_path / "token")
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_token(tmp_path / "nothing")


@pytest.mark.parametrize(
    "part, fault, message",
    [
        (
            "/api/",
            401,
            "gpt2 is no directory here, and {0} has no model gpt2 that may be read (HTTP 401)",
        ),
        (
            "/api/",
            404,
            "gpt2 is no directory here, and {0} has no model gpt2 that may be read (HTTP 404)",
        ),
        ("/api/", 403, "{0} denies access to gpt2 (HTTP 403); accept its terms there"),
        ("/api/", 500, "{0} failed to send gpt2: Server error '500"),
        ("/api/", "silent", "gpt2 is no directory here, and {0} cannot be reached: timed out"),
        ("/api/", "loop", "{0} cannot be reached: Exceeded maximum allowed redirects"),
        ("/api/", "page", "{0} cannot be reached: it does not answer like a hub"),
        ("config.json", "loop", "the download of gpt2 from {0} ended early: Exceeded 20 redirects"),
        ("model.safetensors", 404, "(HTTP 404)"),
        ("model.safetensors", "half", "the hub ended a file early 4 times; try again later"),
    ],
)
def test_a_fault_of_the_hub_is_one_line(
    client: Client, repository: Path, part: str, fault: Any, message: str
) -> None:
    hub = client.hub
    hub.add("gpt2", repository)
    hub.faults[part] = fault
    assert message.format(hub.address) in client.refusal("gpt2")
    hub.faults.clear()
    assert (client.locate("gpt2") / "model.safetensors").read_bytes() == (
        repository / "model.safetensors"
    ).read_bytes()


def test_a_download_that_was_cut_once_goes_on(
    hub: ModelHub, client: Client, repository: Path
) -> None:
    hub.add("gpt2", repository)
    hub.faults["model.safetensors"] = "half once"
    directory = client.locate("gpt2")
    assert (directory / "model.safetensors").read_bytes() == (
        repository / "model.safetensors"
    ).read_bytes()


def test_without_the_hub_a_complete_copy_in_the_cache_is_exported(
    hub: ModelHub, client: Client, repository: Path
) -> None:
    hub.add("gpt2", repository)
    directory = client.locate("gpt2")
    for fault in ("silent", 500, "loop"):
        hub.faults["/api/"] = fault
        assert client.locate("gpt2") == directory
        assert client.warnings.pop().endswith("; exporting gpt2 from the cache")
    hub.faults["/api/"] = 401
    assert "(HTTP 401)" in client.refusal("gpt2")


def test_offline_the_cache_is_all_there_is(
    hub: ModelHub, client: Client, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("gpt2", repository)
    hub.faults["model.safetensors"] = 404
    client.refusal("gpt2")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "gpt2 is not complete in the cache" in client.refusal("gpt2")
    assert "org/gpt2 at v1 is not in the cache" in client.refusal("org/gpt2", "v1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.faults.clear()
    directory = client.locate("gpt2")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert client.locate("gpt2") == directory
    assert not hub.requests


def test_a_directory_comes_before_a_model_of_its_name(
    hub: ModelHub,
    client: Client,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub.add("gpt2", repository)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2").mkdir()
    assert client.locate("gpt2") == Path("gpt2")
    assert client.warnings == [
        "gpt2 is a directory here, which is exported; hf://gpt2 is the model of that id on the hub"
    ]
    assert "is a path; give an id, after hf:// if" in client.refusal("gpt2", "main")
    assert (client.locate("hf://gpt2") / "model.safetensors").is_file()
    (tmp_path / "mine").mkdir()
    assert client.locate("mine") == Path("mine")
    assert len(client.warnings) == 1


def test_an_adapter_is_downloaded_with_its_base(
    hub: ModelHub, client: Client, repository: Path, tmp_path: Path
) -> None:
    model = GPT2LMHeadModel.from_pretrained(repository, use_safetensors=True)
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["c_attn"]))
    adapted.peft_config["default"].base_model_name_or_path = "org/base"
    adapted.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    adapter = hub.add("org/adapter", tmp_path / "adapter")
    origin = Origin("org/adapter", hub=Hub(endpoint=hub.address, cache=tmp_path / "cache"))
    merged = tmp_path / "merged"
    with pytest.raises(AdapterError, match=r"base model 'org/base': .*HTTP 404.*; --base names an"):
        origin.prepare(merged, lambda *_: None, client.warnings.append)
    base = hub.add("org/base", repository)
    prepared = origin.prepare(merged, lambda *_: None, client.warnings.append)
    assert [(each.id, each.commit) for each in prepared.models] == [
        ("org/adapter", adapter),
        ("org/base", base),
    ]
    # A new adapter changes nothing.
    whole, before = (load_file(each / "model.safetensors") for each in (merged, repository))
    assert whole.keys() == before.keys()
    assert all(torch.equal(whole[name], before[name]) for name in before)
    assert "adapter_model.safetensors" in hub.downloaded()
    assert "README.md" not in hub.downloaded()


@pytest.mark.parametrize(
    "name",
    [
        *("./gpt2", "/gpt2", "a/b/c", "~gpt2", "gpt 2", "", "-", "a..b", "org/a--b", "x" * 200),
    ],
)
def test_what_is_no_id_is_a_path(hub: ModelHub, client: Client, name: str) -> None:
    assert client.locate(name) == Path(name)
    assert not hub.requests
    with pytest.raises(HubError, match="is not the id of a model"):
        client.locate(f"hf://{name}")


def export(hub: ModelHub, home: Path, *arguments: str, **variables: str) -> Any:
    """Start the export of `gpt2` in a process."""
    left_out = ("_proxy", "_PROXY", "HF_HUB_OFFLINE", "HF_TOKEN")
    kept = {name: value for name, value in os.environ.items() if not name.endswith(left_out)}
    return subprocess.Popen(
        [sys.executable, "-m", "gpt2flow.cli", "export", "gpt2", *arguments, "--force"],
        env=kept | {"HF_ENDPOINT": hub.address, "HF_HOME": str(home)} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=home.parent,
    )


def test_the_command_exports_an_id_and_survives_a_kill(
    hub: ModelHub, repository: Path, tmp_path: Path
) -> None:
    """A killed download leaves nothing half; the next one completes it."""
    commit = hub.add("gpt2", repository)
    hub.faults["model.safetensors"] = "stall"
    home = tmp_path / "home"
    with export(hub, home, "bundle", "--profile", "int8") as killed:
        assert hub.stalled.wait(SECONDS)
        killed.send_signal(signal.SIGKILL)
    assert not (tmp_path / "bundle").exists()
    assert not list((home / "hub").glob("models--gpt2/snapshots/*/model.safetensors"))
    offline = export(hub, home, "bundle", HF_HUB_OFFLINE="1")
    assert "gpt2 is not complete in the cache" in offline.communicate(timeout=SECONDS)[1]
    assert offline.returncode == 2
    hub.faults.clear()
    done = export(hub, home, "bundle", "--profile", "int8")
    output, errors = done.communicate(timeout=4 * SECONDS)
    assert done.returncode == 0, errors
    assert "Fetching the model" in errors
    manifest = load_bundle(tmp_path / "bundle").manifest
    assert manifest.source.models == [HubModel(id="gpt2", commit=commit)]
    quality = manifest.quality
    assert quality is not None
    assert quality.text.startswith("default_text.txt sha256:")
    assert output.startswith("bundle: profile int8")
    hub.requests.clear()
    again = export(hub, home, "again", "--profile", "int8", HF_HUB_OFFLINE="1")
    assert again.communicate(timeout=4 * SECONDS)[1]
    assert again.returncode == 0
    assert not hub.requests
    for name in ("model.onnx", "model.onnx.data", "manifest.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "bundle" / name).read_bytes()
