"""Weights as files: checked before use, and fetched from where they are published if not here."""

import hashlib
import pickle
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

import huggingface_hub
import safetensors.torch
import torch
import torchvision
from huggingface_hub import constants
from safetensors import SafetensorError
from torch import Tensor, nn

from .. import fetching

HUB_FILE = "model.safetensors"
HUB_SECONDS = 10  # how long the hub may take to answer before it counts as out of reach
OFFERED = 3  # names in a message
LONGEST = 120  # characters of a reason that others give
UNREADABLE = (SafetensorError, pickle.UnpicklingError, OSError, EOFError)


class CheckpointError(RuntimeError):
    """Weights are missing, or are not the ones that their description promises."""


class HubUnavailable(ConnectionError):
    """Weights that are not on this machine could not be fetched."""


def shown(file: Path) -> str:
    """A file as messages name it: from the project's folder, else with its own folder alone."""
    if file.is_relative_to(fetching.ROOT):
        return file.relative_to(fetching.ROOT).as_posix()
    return f"{file.parent.name}/{file.name}"


def sha256_of(file: Path) -> str:
    """The sha256 of a file."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def verified(file: Path, sha256: str, remedy: str) -> bytes:
    """The content of a file, once its hash is the promised one.

    Args:
        file: With the weights.
        sha256: The promised hash.
        remedy: What to do, with which the error ends.

    Returns:
        The content.

    Raises:
        CheckpointError: If the file is missing or its hash differs.
    """
    if not file.is_file():
        raise CheckpointError(f"{shown(file)} is missing; {remedy}.")
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise CheckpointError(f"{shown(file)} is damaged (its sha256 differs); {remedy}.")
    return content


@contextmanager
def fitting(file: Path, remedy: str) -> Iterator[None]:
    """What goes wrong inside while weights are read and given to a model, in one sentence.

    Args:
        file: With the weights.
        remedy: What to do, with which the error ends.

    Raises:
        CheckpointError: For a file that holds no weights, or those of another model.
    """
    try:
        yield
    except (*UNREADABLE, RuntimeError, LookupError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{shown(file)} holds no weights for this model ({_reason(error)}); {remedy}."
        ) from None


def fill(model: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """Give a model its weights, of the same names, shapes and kinds of numbers.

    Args:
        model: Any network.
        weights: Its state dict, in any precision.

    Returns:
        The model.

    Raises:
        RuntimeError: For weights of another model.
        TypeError: For whole numbers in the place of fractions, which would be taken as they are.
    """
    for name, own in model.state_dict().items():
        if name in weights and own.is_floating_point() != weights[name].is_floating_point():
            raise TypeError(f"{name} is {weights[name].dtype} where {own.dtype} is wanted")
    model.load_state_dict(weights)
    return model


def safetensors_of(file: Path) -> dict[str, Tensor]:
    """The tensors of a file of the safetensors format, which holds nothing that could be run.

    Args:
        file: Of anybody's making.

    Returns:
        Name → tensor.

    Raises:
        FileNotFoundError: Where there is no such file.
        CheckpointError: For a pickle, which is not read, and for a damaged file.
    """
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {file}: give the path of a safetensors file.")
    with file.open("rb") as content:
        begins = content.read(2)
    if begins == b"PK" or begins[:1] == b"\x80":  # torch.save's archive, and the older pickle
        raise CheckpointError(
            f"{shown(file)} is a pickle, which can run whatever it likes when it is read: convert "
            "it to safetensors (safetensors.torch.save_file) where you trust it."
        )
    try:
        return safetensors.torch.load_file(file)
    except SafetensorError as error:
        raise CheckpointError(
            f"{shown(file)} is no safetensors file, or is cut short ({_reason(error)}): put back a "
            "sound copy of it."
        ) from None


def fill_exactly(model: nn.Module, weights: dict[str, Tensor], file: Path, name: str) -> nn.Module:
    """As `fill`, saying which tensors are others where the weights are those of another model.

    Args:
        model: Any network.
        weights: Its state dict, in any precision.
        file: Where they are from.
        name: Of the model.

    Returns:
        The model.

    Raises:
        CheckpointError: For weights of another model.
    """
    own = model.state_dict()
    differences = {
        "missing": [key for key in own if key not in weights],
        "too many": [key for key in weights if key not in own],
        "of another shape": [
            f"{key} {list(weights[key].shape)} for {list(value.shape)}"
            for key, value in own.items()
            if key in weights and weights[key].shape != value.shape
        ],
    }
    if found := [f"{len(keys)} {how} ({_few(keys)})" for how, keys in differences.items() if keys]:
        raise CheckpointError(
            f"{shown(file)} holds no weights of {name}: of its tensors {' and '.join(found)}; "
            "give the architecture, and the number of classes, that they are of."
        )
    with fitting(file, "give weights of this model"):
        return fill(model, weights)


def _few(names: list[str]) -> str:
    return ", ".join(names[:OFFERED]) + (", …" if len(names) > OFFERED else "")


# The hub of Hugging Face.


def _folder(repository: str) -> Path:
    """Where the hub's client keeps all that it has of a repository."""
    return Path(constants.HF_HUB_CACHE, "models--" + repository.replace("/", "--"))


def cached(repository: str) -> Path | None:
    """The weights of a hub model on this machine: of the main revision, else the newest.

    Args:
        repository: On the hub.

    Returns:
        The path; None where there are none.
    """
    found = huggingface_hub.try_to_load_from_cache(repository, HUB_FILE)
    if isinstance(found, str):
        return Path(found)
    others = [f for f in _folder(repository).glob(f"snapshots/*/{HUB_FILE}") if f.is_file()]
    return max(others, key=lambda file: file.stat().st_mtime, default=None)


def hub_fingerprint(repository: str) -> str | None:
    """The sha256 of a hub model's weights on this machine; None where there are none.

    Args:
        repository: On the hub.
    """
    file = cached(repository)
    return file and (_promised(file) or sha256_of(file))


def _promised(file: Path) -> str | None:
    """The sha256 that a large file in the cache is named by; None where names are no hashes."""
    name = file.resolve().name
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else None


def hub_remedy(repository: str) -> str:
    """What to do about damaged weights of a hub model, for an error's end.

    Args:
        repository: On the hub.
    """
    return f"delete the folder {_folder(repository)} and load the model again"


def from_hub(name: str, repository: str, offline: list[str]) -> Path:
    """The path of a hub model's weights: from the cache, else downloaded after saying the size.

    Args:
        name: Of the model.
        repository: On the hub.
        offline: Names to offer where the hub is out of reach.

    Returns:
        The path, of a file whose hash is the one that the hub gave.

    Raises:
        HubUnavailable: Where the hub is out of reach, and for a download that broke off.
        PermissionError: For a cache that cannot be written.
        CheckpointError: If what is in the cache, or arrived, is not what the hub lists.
    """
    file = cached(repository) or _downloaded(name, repository, offline)
    if (promised := _promised(file)) and sha256_of(file) != promised:
        raise CheckpointError(
            f"The weights of {name} are damaged (their sha256 differs from what the hub "
            f"promised); {hub_remedy(repository)}."
        )
    return file


def _downloaded(name: str, repository: str, offline: list[str]) -> Path:
    # The hub's client lets through the exceptions of its HTTP library, which is another one in
    # other versions: so `except Exception`, with the reason passed on.
    try:
        info = huggingface_hub.HfApi().model_info(
            repository, files_metadata=True, timeout=HUB_SECONDS
        )
        entry = {sibling.rfilename: sibling for sibling in info.siblings}[HUB_FILE]
    except Exception as error:
        raise HubUnavailable(
            f"The weights of {name} are not on this machine, and the hub cannot be reached or does "
            f"not give them ({_reason(error)}); without it there are {_some(offline)}."
        ) from error
    print(f"Downloading {name}, {entry.size / 1e6:.0f} MB, from the hub.", file=sys.stderr)
    try:
        # By the main revision, not by its hash, so that others find it there without the hub.
        return Path(huggingface_hub.hf_hub_download(repository, HUB_FILE))
    except PermissionError as error:
        folder = error.filename or constants.HF_HUB_CACHE
        raise PermissionError(
            f"The cache folder {folder} cannot be written; set HF_HOME to a folder that can."
        ) from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"The download of {name} was interrupted; no part of it is used, and loading it again "
            "goes on from there."
        ) from None
    except Exception as error:
        raise HubUnavailable(
            f"The download of {name} broke off ({_reason(error)}); load it again to go on."
        ) from error


# Torchvision's.


def torchvision_file(name: str) -> Path:
    """Where the default weights of a torchvision model are, or will be.

    Args:
        name: Of the model.
    """
    url = torchvision.models.get_model_weights(name).DEFAULT.url
    return Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(url).path).name)


def from_torchvision(name: str, offline: list[str]) -> dict:
    """The default weights of a torchvision model: from torch's hub folder, else downloaded there.

    Warns where the file is not the published one, whose hash begins as its name ends.

    Args:
        name: Of the model.
        offline: Names to offer where they cannot be fetched.

    Returns:
        The state dict.

    Raises:
        HubUnavailable: Where they cannot be fetched.
        CheckpointError: For a damaged file.
    """
    file = torchvision_file(name)
    if not file.is_file():
        _fetch(name, offline)
    with fitting(file, f"delete {file} and load the model again"):
        weights = torch.load(file, map_location="cpu", weights_only=True)
    published = re.search(r"-([0-9a-f]{8,})\.", file.name)
    if published and not sha256_of(file).startswith(published[1]):
        warnings.warn(
            f"{file.name} is not the file that torchvision publishes (its sha256 differs from the "
            "one in its name): what is measured is of other weights.",
            stacklevel=2,
        )
    return weights


def _fetch(name: str, offline: list[str]) -> None:
    try:
        if constants.HF_HUB_OFFLINE:
            raise PermissionError("HF_HUB_OFFLINE=1 forbids it")
        weights = torchvision.models.get_model_weights(name).DEFAULT
        weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # no connection; another hash than in the file's name
        raise HubUnavailable(
            f"The weights of {name} are not in torch's hub folder, and fetching them failed "
            f"({_reason(error)}); without them there are {_some(offline)}."
        ) from error


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:OFFERED])
    rest = len(names) - OFFERED
    return f"{shown} and {rest} more, which zoo.catalog() lists" if rest > 0 else shown


def _reason(error: Exception) -> str:
    """The first line of what a library says or, where that only announces more, the second."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = lines[1] if len(lines) > 1 and lines[0].endswith(":") else lines[0]
    line = line.strip().rstrip(".")
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"
