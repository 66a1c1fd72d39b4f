"""Weights that are published elsewhere: caches, downloads and what comes out of them."""

import contextlib
import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from unittest.mock import patch

import huggingface_hub
import safetensors.torch
import timm
import torch
import torchvision
from huggingface_hub import constants, file_download

from experiments.engine.job import Condition
from experiments.replicate import _at_hand
from faults.case import Case, command
from faults.cases.records import pictures
from utils.models import zoo

NAME, REPOSITORY = "test_vit", "timm/test_vit.r160_in1k"
FOLDER = "models--timm--test_vit.r160_in1k"
REVISION = "a" * 40


@cache
def weights(seed: int = 0) -> bytes:
    """Weights of a small model of timm's, as the hub would deliver them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return safetensors.torch.save(timm.create_model(NAME).state_dict())


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def cache_in(folder: Path, offline: bool = True, **settings) -> Iterator[Path]:
    """The hub's cache in this folder, and no hub unless `settings` say where it is."""
    changed = {"HF_HUB_CACHE": str(folder / "hub"), "HF_HUB_OFFLINE": offline, **settings}
    with contextlib.ExitStack() as stack:
        for name, value in changed.items():
            stack.enter_context(patch.object(constants, name, value))
        yield folder / "hub" / FOLDER


# A hub on this machine.


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does, with `content`, in one of several wrong ways."""

    content, way = b"", "right"

    def log_message(self, *_) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, body: bool = True) -> None:
        listing = self.path.startswith("/api/models/")
        if self.way == "gone" or (self.way == "no file" and not listing):
            self.answer(404, b"{}", body)
        elif self.way == "broken":
            self.answer(501, b"{}", body)
        elif self.way == "a page":
            self.answer(200, b"<html>Sign in to the network</html>", body)
        elif listing:
            self.answer(200, json.dumps(self.listing()).encode(), body)
        else:
            named = "0" * 64 if self.way == "another hash" else digest(self.content)
            etag = "b" * 40 if self.way == "small" else named
            head = {"ETag": f'"{etag}"', "X-Repo-Commit": REVISION}
            self.answer(200, self.content, body, **head)

    def answer(self, status: int, content: bytes, body: bool, **head: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in head.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def listing(self) -> dict:
        file = {"rfilename": "model.safetensors", "size": len(self.content), "blobId": "b" * 40}
        if self.way != "small":
            sizes = {"size": len(self.content), "pointerSize": 1}
            file["lfs"] = {"sha256": digest(self.content), **sizes}
        files = [] if self.way == "no weights" else [file]
        return {"id": REPOSITORY, "sha": REVISION, "siblings": files}


@contextlib.contextmanager
def hub(folder: Path, way: str = "right", content: bytes | None = None) -> Iterator[Path]:
    """The cache, and a hub that has the weights."""
    handler = type("Hub", (Hub,), {"content": content or weights(), "way": way})
    server = ThreadingHTTPServer(("localhost", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    place = f"http://localhost:{server.server_port}"
    template = f"{place}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    settings = {"ENDPOINT": place, "HUGGINGFACE_CO_URL_TEMPLATE": template}
    try:
        with cache_in(folder, offline=False, **settings) as own:
            yield own
    finally:
        server.shutdown()
        server.server_close()


def biases(model) -> torch.Tensor:
    return torch.cat([p.flatten() for p in model.parameters()])[:1000]


def stored(content: bytes) -> torch.Tensor:
    """The same of what is in a file, by another reader."""
    state = safetensors.torch.load(content)
    names = [name for name, _ in timm.create_model(NAME).named_parameters()]
    return torch.cat([state[name].flatten() for name in names])[:1000]


# In the cache.


def laid(own: Path, content: bytes, layout: str = "", name: str | None = None) -> Path:
    """A cache as the hub's client leaves it, or in another of its forms; the weights' file."""
    blob, link = own / "blobs" / (name or digest(content)), own / f"snapshots/{REVISION}"
    link.mkdir(parents=True)
    link /= "model.safetensors"
    if layout == "without links":  # of Windows
        link.write_bytes(content)
        blob = link
    else:
        blob.parent.mkdir()
        blob.write_bytes(content)
        link.symlink_to(Path("../../blobs") / blob.name)
    if layout != "by its hash":  # fetched by revision, which leaves no reference
        (own / "refs").mkdir()
        (own / "refs/main").write_text(REVISION, encoding="utf-8")
    return blob


def cached(folder: Path, layout: str, act: Callable = lambda: biases(zoo.load(NAME))):
    with cache_in(folder) as own:
        laid(own, weights(), layout)
        return act()


def newest(folder: Path):
    """Of two revisions without a reference the one that was fetched last."""
    with cache_in(folder) as own:
        laid(own, weights(0), "by its hash")
        other = own / f"snapshots/{'c' * 40}/model.safetensors"
        other.parent.mkdir()
        other.write_bytes(weights(1))
        return biases(zoo.load(NAME))


DAMAGE = {
    "cut": lambda content: content[:-1000],
    "empty": lambda content: b"",
    "of other weights": lambda content: weights(1),
    "of zeros": lambda content: bytes(len(content)),
    "of a page": lambda content: b"<html>Sign in</html>",
    "with a bit changed": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
}


def damaged(folder: Path, change: Callable, layout: str):
    with cache_in(folder) as own:
        laid(own, change(weights()), layout, digest(weights()))
        return zoo.load(NAME)


def healed(folder: Path, change: Callable):
    """Do what the sentence says, and load again."""
    with hub(folder) as own:
        laid(own, change(weights()), "", digest(weights()))
        try:
            zoo.load(NAME)
        except RuntimeError as error:
            said = str(error)
            shutil.rmtree(said.split("delete the folder ")[1].split(" and load")[0])
        return biases(zoo.load(NAME))


def of_another_model(folder: Path, layout: str):
    with cache_in(folder) as own:
        content = safetensors.torch.save({"head.weight": torch.zeros(3, 3)})
        laid(own, content, layout)
        return zoo.load(NAME)


def measured(folder: Path, *arguments: object) -> str:
    given = ("--measures", "accuracy", "--data", pictures(folder / "val"), "--out", "a")
    return command("measure", NAME, *given, *arguments)


def recorded_weights(folder: Path, layout: str):
    """What a record says of the weights."""
    with cache_in(folder) as own:
        laid(own, weights(), layout)
        measured(folder)
    record = json.loads((folder / "a.json").read_text(encoding="utf-8"))
    return record["conditions"][f"{NAME} trained"]["weights"]


def then_others(folder: Path, layout: str):
    """Measured with one set of weights, and then with another one in the cache."""
    recorded_weights(folder, layout)
    with cache_in(folder) as own:
        shutil.rmtree(own)
        laid(own, weights(1), layout)
        measured(folder)


def then_none(folder: Path, layout: str):
    """Measured, and then asked for again without the weights: what is finished is finished."""
    recorded_weights(folder, layout)
    with cache_in(folder) as own:
        shutil.rmtree(own)
        return measured(folder).strip()


LAYOUTS = ("", "by its hash", "without links")
LINKED = LAYOUTS[:2]
OF_CACHES = [
    *(
        Case(
            f"offline with a cache {layout or 'as usual'}",
            lambda folder, o=layout: cached(folder, o),
            lambda _: stored(weights()),
        )
        for layout in LAYOUTS
    ),
    *(
        Case(
            f"the fingerprint with a cache {layout or 'as usual'}",
            lambda folder, o=layout: cached(folder, o, lambda: zoo.fingerprint(NAME)),
            lambda _: digest(weights()),
        )
        for layout in LAYOUTS
    ),
    *(
        Case(
            f"at hand with a cache {layout or 'as usual'}",
            lambda folder, o=layout: cached(
                folder, o, lambda: _at_hand(NAME, "imagenet", None, Path())
            ),
            True,
        )
        for layout in LAYOUTS
    ),
    Case("two revisions and no reference", newest, lambda _: stored(weights(1))),
    *(
        Case(
            f"a cached file {kind}, {layout or 'as usual'}",
            lambda folder, c=change, o=layout: damaged(folder, c, o),
            says=(f"weights of {NAME} are damaged", "delete the folder", FOLDER),
        )
        for (kind, change), layout in product(DAMAGE.items(), LINKED)
    ),
    *(
        Case(
            f"a cached file {kind}, without links",
            lambda folder, c=DAMAGE[kind]: damaged(folder, c, "without links"),
            says=("no weights for this model", "delete the folder", FOLDER),
        )
        for kind in ("cut", "empty", "of a page", "of zeros")
    ),
    *(
        Case(
            f"a cached file {kind}, and what the sentence says is done",
            lambda folder, c=change: healed(folder, c),
            lambda _: stored(weights()),
        )
        for kind, change in DAMAGE.items()
    ),
    *(
        Case(
            f"weights of another model, {layout or 'as usual'}",
            lambda folder, o=layout: of_another_model(folder, o),
            says=("no weights for this model", "delete the folder"),
        )
        for layout in LAYOUTS
    ),
    *(
        Case(
            f"what a record says of weights, {layout or 'as usual'}",
            lambda folder, o=layout: recorded_weights(folder, o),
            lambda _: digest(weights())[:12],
        )
        for layout in LAYOUTS
    ),
    *(
        Case(
            f"other weights than those in the table, {layout or 'as usual'}",
            lambda folder, o=layout: then_others(folder, o),
            says=("other weights", "another file"),
        )
        for layout in LAYOUTS
    ),
    Case(
        "a finished table whose weights are gone",
        lambda folder: then_none(folder, ""),
        "a.csv holds 1 condition, 0 new.",
    ),
]


# Over the network.


def fetched(folder: Path, way: str = "right", length: int | None = None):
    with hub(folder, way, weights()[:length]):
        return biases(zoo.load(NAME))


def then_offline(folder: Path, way: str = "right"):
    """What was downloaded is there without the hub."""
    fetched(folder, way)
    with cache_in(folder):
        return biases(zoo.load(NAME)), zoo.fingerprint(NAME)


def without_links(folder: Path, way: str):
    """The same on Windows, where the hub's client copies what it cannot link."""
    with patch.object(file_download, "are_symlinks_supported", lambda *_: False):
        found = then_offline(folder, way)
    return found, [file for file in folder.rglob("*") if file.is_symlink()]


def by_others(folder: Path):
    """Timm's own loader finds it there, offline."""
    fetched(folder)
    with cache_in(folder):
        file = huggingface_hub.hf_hub_download(REPOSITORY, "model.safetensors")
        return stored(Path(file).read_bytes())


def unreached(folder: Path, offline: bool):
    """No hub is there: connections are refused, or forbidden."""
    place = {"ENDPOINT": "http://localhost:9"}
    with cache_in(folder, offline, **place):
        return zoo.load(NAME)


def no_part(folder: Path) -> bool:
    return not [*folder.rglob("model.safetensors")]


WAYS = {
    "gone": ("not on this machine",),
    "broken": ("not on this machine",),
    "a page": ("not on this machine",),
    "no weights": ("not on this machine",),
    "no file": ("broke off", "load it again"),
}
OVER_THE_NETWORK = [
    Case("a download", fetched, lambda _: stored(weights())),
    Case(
        "a download, then without the hub",
        then_offline,
        lambda _: (stored(weights()), digest(weights())),
    ),
    Case(
        "a download of a file that is not large, then without the hub",
        lambda folder: then_offline(folder, "small"),
        lambda _: (stored(weights()), digest(weights())),
    ),
    *(
        Case(
            f"a download without links of {size} weights, then without the hub",
            lambda folder, w=way: without_links(folder, w),
            lambda _: ((stored(weights()), digest(weights())), []),
        )
        for size, way in (("large", "right"), ("small", "small"))
    ),
    Case("a download is found by others", by_others, lambda _: stored(weights())),
    *(
        Case(
            f"a hub that answers with {way}",
            lambda folder, w=way: fetched(folder, w),
            says=(NAME, *says),
            kept=no_part,
        )
        for way, says in WAYS.items()
    ),
    Case(
        "a download with another hash than the hub promised",
        lambda folder: fetched(folder, "another hash"),
        says=("are damaged", "delete the folder"),
    ),
    *(
        Case(
            f"a download of {length} bytes, listed as it is",
            lambda folder, n=length: fetched(folder, "right", n),
            says=("no weights for this model", "delete the folder"),
        )
        for length in (6, 1000, 100_000)
    ),
    *(
        Case(
            f"no hub, {'forbidden' if offline else 'refused'}",
            lambda folder, o=offline: unreached(folder, o),
            says=(NAME, "not on this machine", "efficientnet-lite0", "zoo.catalog()"),
        )
        for offline in (True, False)
    ),
    *(
        Case(
            f"a model called {name}",
            lambda _, n=name: zoo.load(n),
            says=("no model", "zoo.catalog()"),
        )
        for name in (
            "resnet50.a9_in1k",
            "hf-hub:timm/resnet18",
            "local-dir:/etc",
            "resnet18.",
            "timm/resnet18.a1_in1k",
            "torchvision/",
            "torchvision/resnet",
            "torchvision/../resnet18",
            "torchvision/resnet18\n",
            "resnet18\0",
        )
    ),
]


# Torchvision's.

TV = "torchvision/squeezenet1_1"
FILE = "squeezenet1_1-b8a52dc0.pth"


@contextlib.contextmanager
def hub_folder(folder: Path, offline: bool = True) -> Iterator[Path]:
    """Where torch keeps what it downloads, and no network."""

    def refused(*_, **__):
        raise OSError("connection refused")

    with (
        patch.object(torch.hub, "_hub_dir", str(folder / "torch")),
        patch.object(torch.hub, "urlopen", refused),
        patch.object(constants, "HF_HUB_OFFLINE", offline),
    ):
        place = folder / "torch" / "checkpoints"
        place.mkdir(parents=True, exist_ok=True)
        yield place


def network() -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return torchvision.models.squeezenet1_1()


def state(half: bool = False) -> dict:
    return {k: v.half() if half else v for k, v in network().state_dict().items()}


def from_torch(folder: Path, content: object, act: Callable = lambda: biases(zoo.load(TV))):
    with hub_folder(folder) as place:
        if isinstance(content, bytes):
            (place / FILE).write_bytes(content)
        elif content is not None:
            torch.save(content() if callable(content) else content, place / FILE)
        return act()


def cut_file(folder: Path):
    with hub_folder(folder) as place:
        torch.save(state(), place / FILE)
        (place / FILE).write_bytes((place / FILE).read_bytes()[:-1000])
        return zoo.load(TV)


def unfetched(folder: Path, offline: bool):
    with hub_folder(folder, offline):
        return zoo.load(TV)


def fingerprint_by_hand(folder: Path) -> str:
    return digest((folder / "torch/checkpoints" / FILE).read_bytes())


WARNED = (FILE, "not the file that torchvision publishes")
NO_WEIGHTS = (FILE, "no weights for this model", "delete", "load the model again")
OF_TORCHVISION = [
    *(
        Case(
            f"torchvision's file with other weights{', halved' if half else ''}",
            lambda folder, h=half: from_torch(folder, lambda: state(h)),
            lambda _, h=half: torch.cat([v.float().flatten() for v in state(h).values()])[:1000],
            WARNED,
        )
        for half in (False, True)
    ),
    Case(
        "the fingerprint of torchvision's file",
        lambda folder: from_torch(folder, state(), lambda: zoo.fingerprint(TV)),
        fingerprint_by_hand,
    ),
    Case(
        "the hash of torchvision's weights in a condition",
        lambda folder: from_torch(folder, state(), lambda: Condition(TV).weights),
        lambda folder: fingerprint_by_hand(folder)[:12],
    ),
    Case(
        "the fingerprint where torchvision's file is not there",
        lambda folder: from_torch(folder, None, lambda: [zoo.fingerprint(TV)]),
        [None],
    ),
    Case("torchvision's file cut", cut_file, says=NO_WEIGHTS),
    *(
        Case(f"torchvision's file {kind}", lambda f, c=content: from_torch(f, c), says=NO_WEIGHTS)
        for kind, content in {
            "empty": b"",
            "of a page": b"<html>Sign in</html>",
            "of zeros": bytes(1000),
            "of a list": [1, 2],
            "of nothing": {},
            "of another model": {"head.bias": torch.zeros(3)},
            "of whole numbers": lambda: {k: v.to(torch.int32) for k, v in state().items()},
        }.items()
    ),
    *(
        Case(
            f"torchvision's file is not there, {'offline' if offline else 'without network'}",
            lambda folder, o=offline: unfetched(folder, o),
            says=("squeezenet1_1", "HF_HUB_OFFLINE" if offline else "connection refused"),
        )
        for offline in (True, False)
    ),
]

CASES = [*OF_CACHES, *OVER_THE_NETWORK, *OF_TORCHVISION]
