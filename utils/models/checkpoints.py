"""Weights as files: checked before use, and fetched from where they are published if not here."""

import hashlib
import sys
from pathlib import Path

import huggingface_hub
import torchvision

HUB_FILE = "model.safetensors"
HUB_SECONDS = 10  # how long the hub may take to answer before it counts as out of reach


class CheckpointError(RuntimeError):
    """Weights are missing, or are not the ones that their description promises."""


class HubUnavailable(ConnectionError):
    """Weights that are not on this machine could not be fetched."""


def shown(file: Path) -> str:
    """A file as messages name it: with its folder, without the path to that."""
    return f"{file.parent.name}/{file.name}"


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
    if not file.exists():
        raise CheckpointError(f"{shown(file)} is missing; {remedy}.")
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise CheckpointError(f"{shown(file)} is damaged (its sha256 differs); {remedy}.")
    return content


def from_hub(name: str, repository: str, offline: list[str]) -> str:
    """The path of a hub model's weights: from the cache, else downloaded after saying the size.

    Args:
        name: Of the model.
        repository: On the hub.
        offline: Names to offer where the hub is out of reach.

    Returns:
        The path.

    Raises:
        HubUnavailable: Where the hub is out of reach, and for a download that broke off.
        PermissionError: For a cache that cannot be written.
        CheckpointError: If what arrived differs from what the hub lists.
    """
    cached = huggingface_hub.try_to_load_from_cache(repository, HUB_FILE)
    if isinstance(cached, str):
        return cached
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
            f"not give them ({_reason(error)}); without it there are {', '.join(offline)}."
        ) from error
    print(f"Downloading {name}, {entry.size / 1e6:.0f} MB, from the hub.", file=sys.stderr)
    try:
        path = huggingface_hub.hf_hub_download(repository, HUB_FILE, revision=info.sha)
    except PermissionError as error:
        folder = error.filename or huggingface_hub.constants.HF_HUB_CACHE
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
    verified(Path(path), entry.lfs.sha256, "delete it and load the model again")
    return path


def from_torchvision(name: str, offline: list[str]) -> dict:
    """The default weights of a torchvision model: from torch's hub folder, else downloaded there.

    Args:
        name: Of the model.
        offline: Names to offer where they cannot be fetched.

    Returns:
        The state dict.

    Raises:
        HubUnavailable: Where they cannot be fetched.
    """
    weights = torchvision.models.get_model_weights(name).DEFAULT
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # no connection; another hash than in the file's name
        raise HubUnavailable(
            f"The weights of {name} are not in torch's hub folder, and fetching them failed "
            f"({_reason(error)}); without them there are {', '.join(offline)}."
        ) from error


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
