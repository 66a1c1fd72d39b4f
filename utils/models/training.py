"""How the embedded models are trained: `python -m utils train vit-d6-h4 resnet-d20`.

Longer than two screens because one run, from recipe to published weights, reads best in one piece.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from accelerate import Accelerator
from timm.optim import create_optimizer_v2
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from utils.models import zoo
from utils.models.architectures import CNNS, Spec, build
from utils.models.provenance import provenance

# Nats. Each time the running mean of the training loss first falls below one of these, the weights
# are kept, so that models can later be compared at equal loss instead of equal training time.
LOSS_LEVELS = (2.0, 1.5, 1.2, 1.0, 0.8, 0.6, 0.5, 0.4, 0.3)
LOSS_HORIZON = 50  # steps over which that mean forgets


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: cross-entropy, no augmentation, warm-up and a cosine down to zero."""

    optimizer: str
    lr: float
    weight_decay: float
    batch_size: int = 128
    epochs: int = 6
    warmup_epochs: float = 0.5

    def lr_at(self, epochs: float) -> float:
        """The learning rate after that many epochs, which may be a fraction."""
        if epochs < self.warmup_epochs:
            return self.lr * epochs / self.warmup_epochs
        done = (epochs - self.warmup_epochs) / (self.epochs - self.warmup_epochs)
        return self.lr * (1 + math.cos(math.pi * done)) / 2


# Peak learning rates, the best on average, on validation after 100,000 views, over the shallowest
# and the deepest model of a sweep (one seed): for Transformers of ½, 1 and 2 times it, for CNNs of
# 1 and 2 times that of he2016deep (half of it left the shallowest three points behind).
TRANSFORMER = Recipe("adamw", lr=1e-3, weight_decay=0.05)
CNN = Recipe("sgd", lr=0.2, weight_decay=5e-4)
RECIPES = {
    "vit": TRANSFORMER,
    "hybrid": TRANSFORMER,
    "mixer": TRANSFORMER,
    "resnet": CNN,
    "plain": CNN,
    "late": CNN,
}
# On objects as few as bring every model of the sweeps above 70 % (300,000 views); on CIFAR-10 half
# as many views more (450,000), which is a choice and not tuned.
EPOCHS = {"objects": Recipe.epochs, "cifar10": 10}


def recipe_of(spec: Spec) -> Recipe:
    """How the model of that name is trained: the recipe of its family, for as long as its rung."""
    return replace(RECIPES[spec.family], epochs=EPOCHS[spec.rung])


def batches(images: int, spec: Spec, epoch: int, size: int) -> Iterator[torch.Tensor]:
    """Image indices, batch by batch, of one epoch: a pure function of (seed, epoch).

    An epoch is always `images` views. A model trained on 10 % of the data sees its tenth ten
    times an epoch, so that all data fractions have the same number of views and steps.
    """
    part = math.ceil(images * spec.data_percent / 100)
    rng = np.random.default_rng((spec.seed, epoch))
    rounds = [rng.permutation(part) for _ in range(math.ceil(images / part))]
    yield from torch.from_numpy(np.concatenate(rounds)[:images]).split(size)


@torch.no_grad()
def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Top-1 accuracy in [0, 1] on images [n, 3, h, w] with labels [n], in batches of 500."""
    if not len(images):
        raise ValueError("There are no images to measure an accuracy on; load at least one.")
    training, device = model.training, next(model.parameters()).device
    model.eval()
    hits = sum(
        (model(x.to(device)).argmax(1) == y.to(device)).sum().item()
        for x, y in zip(images.split(500), labels.split(500), strict=True)
    )
    model.train(training)
    return hits / len(images)


def forward_flops(model: nn.Module) -> int:
    """Operations of one forward pass of one 32×32 image, a multiply-add counting as two."""
    # The counter does not see inside fused attention on the CPU, hence the plain kernel.
    image = torch.zeros(1, 3, 32, 32, device=next(model.parameters()).device)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(image)
    return counter.get_total_flops()


def _save(file: Path, write) -> None:
    """Write through a temporary file, so that an interruption leaves the old file or the new."""
    temporary = file.with_name(file.name + ".tmp")
    write(temporary)
    os.replace(temporary, file)


def _save_half(model: nn.Module, file: Path) -> None:
    weights = {
        key: (value.half() if value.is_floating_point() else value).cpu().contiguous()
        for key, value in model.state_dict().items()
    }
    _save(file, lambda temporary: safetensors.torch.save_file(weights, temporary))


def _digest(train) -> str:
    """Tells training sets apart, so that a run never goes on with other images."""
    content = hashlib.sha256(np.ascontiguousarray(train.images))
    content.update(np.ascontiguousarray(train.labels))
    return content.hexdigest()


def train(
    name: str,
    train,
    validation,
    recipe: Recipe | None = None,
    out: Path = Path("_runs"),
    source: str | None = None,
) -> Path:
    """Train the model called `name`, or go on where an interrupted call stopped; gives its folder.

    `train` and `validation` have `images` [n, 3, 32, 32] float32 in [0, 1] and `labels` [n] int64;
    `source` says what they are, such as "cifar10-jpeg" (the model's rung if None).
    The folder, `out/name`, gets state.pt (after every epoch), loss-<nats>.safetensors (see
    LOSS_LEVELS), and at the end final.safetensors and record.json (recipe, curve, FLOPs, time,
    device, versions). A resumed run equals an uninterrupted one bit for bit on the same machine,
    and a finished one returns at once. One process trains one model: start several to fill a GPU.
    Raises ValueError for empty data or a folder begun with another recipe or other images, and
    FloatingPointError when the loss is not finite.
    """
    spec = zoo.spec(name)
    recipe = recipe or recipe_of(spec)
    for split, stimuli in (("training", train), ("validation", validation)):
        if not len(stimuli.images):
            raise ValueError(f"The {split} set for {name} is empty; load at least one image.")
    folder = Path(out) / spec.short
    folder.mkdir(parents=True, exist_ok=True)

    accelerator = Accelerator()  # device and precision, both settable by its own variables
    model = build(spec).train()
    # A quarter less time on a CPU; a ViT gains nothing. Below eight channels (width 32), a backward
    # pass in this order of memory crashes on processors without AVX-512.
    if spec.family in CNNS and spec.width >= 32:
        model = model.to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(
        model, recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
    )
    model, optimizer = accelerator.prepare(model, optimizer)
    # Nothing here draws random numbers while training (no dropout, no augmentation; the order of
    # images depends on seed and epoch only), so weights and optimiser are the whole state.
    begun_with = {"recipe": asdict(recipe), "images": _digest(train)}
    progress = {"epoch": 0, "running_loss": math.log(10), "seconds": 0.0, "curve": []}
    if (folder / "state.pt").exists():
        state = torch.load(folder / "state.pt", map_location=accelerator.device, weights_only=True)
        if state["begun_with"] != begun_with:
            raise ValueError(
                f"{folder} was begun with another recipe or other images; "
                "delete it to start again, or train into another folder."
            )
        if (folder / "record.json").exists():
            return folder
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        progress = state["progress"]

    images, labels = train.images.to(accelerator.device), train.labels.to(accelerator.device)
    try:
        while progress["epoch"] < recipe.epochs:
            started = time.perf_counter()
            loss = _epoch(
                accelerator, model, optimizer, images, labels, spec, recipe, progress, folder
            )
            seen = accuracy(model, validation.images, validation.labels)
            progress["epoch"] += 1
            progress["seconds"] += time.perf_counter() - started
            progress["curve"].append(
                {"epoch": progress["epoch"], "train_loss": loss, "validation_accuracy": seen}
            )
            state = {
                "begun_with": begun_with,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "progress": progress,
            }
            _save(folder / "state.pt", lambda file, state=state: torch.save(state, file))
            tqdm.write(
                f"{spec.short} epoch {progress['epoch']}/{recipe.epochs}: loss {loss:.3f} nats, "
                f"validation {seen:.1%}, {progress['seconds']:.0f} s so far"
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"Training of {spec.short} was interrupted: {progress['epoch']} of {recipe.epochs} "
            f"epochs are safe in {folder}, and the same command goes on from there."
        ) from None

    model = accelerator.unwrap_model(model).eval()
    _save_half(model, folder / "final.safetensors")
    record = {
        "name": spec.canonical,
        "trained_on": source or spec.rung,
        "images": len(images),
        "views": recipe.epochs * len(images),
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "flops": forward_flops(model),
        "recipe": asdict(recipe),
        "seconds": round(progress["seconds"], 1),
        "curve": progress["curve"],
        **provenance(accelerator.device),
    }
    # Three forward passes' worth of arithmetic an image: forward, and backward at twice its cost.
    record["training_flops"] = 3 * record["flops"] * record["views"]
    _save(folder / "record.json", lambda file: file.write_text(json.dumps(record, indent=1) + "\n"))
    return folder


def _epoch(accelerator, model, optimizer, images, labels, spec, recipe, progress, folder) -> float:
    """One pass over the training images; gives its mean loss in nats."""
    steps, epoch = math.ceil(len(images) / recipe.batch_size), progress["epoch"]
    bar = tqdm(
        batches(len(images), spec, epoch, recipe.batch_size),
        f"{spec.short} epoch {epoch + 1}/{recipe.epochs}",
        total=steps,
        leave=False,
        disable=None,
    )
    total = 0.0
    for step, rows in enumerate(bar):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr_at(epoch + (step + 1) / steps)
        loss = F.cross_entropy(model(images[rows]), labels[rows])
        optimizer.zero_grad()
        accelerator.backward(loss)
        nats = loss.item()
        if not math.isfinite(nats):
            raise FloatingPointError(
                f"The loss of {spec.short} became {nats} in epoch {epoch + 1}, step {step + 1}; "
                f"train again with a lower learning rate than {recipe.lr:g}."
            )
        optimizer.step()
        total += nats * len(rows)
        before = progress["running_loss"]
        progress["running_loss"] += (nats - before) / LOSS_HORIZON
        for level in LOSS_LEVELS:
            if progress["running_loss"] < level <= before:
                file = folder / f"loss-{level}.safetensors"
                if not file.exists():
                    _save_half(accelerator.unwrap_model(model), file)
    return total / len(images)


def publish(run: Path, test, folder: Path | None = None) -> float:
    """Put a finished run into the zoo; gives its accuracy in [0, 1] with the weights as stored.

    `run` is what `train` gave, `test` the held-out images and labels. Writes the fp16 weights and
    the manifest into `folder` (the zoo's own if None). Raises FileNotFoundError if the training
    has not ended.
    """
    folder = folder or zoo.FOLDER
    try:
        record = json.loads((run / "record.json").read_text())
        content = (run / "final.safetensors").read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{run} holds no finished training ({Path(error.filename).name} is missing); "
            "run the same training command again to finish it."
        ) from None
    spec = Spec.parse(record.pop("name"))
    model = build(spec)
    model.load_state_dict(safetensors.torch.load(content))
    measured = accuracy(model, test.images, test.labels)
    file = folder / f"{spec.short}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    _save(file, lambda temporary: temporary.write_bytes(content))
    manifest = zoo.manifest(folder) | {
        spec.short: {
            "file": f"{spec.short}.safetensors",
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "accuracy": measured,
            "accuracy_images": len(test.images),
            **record,
        }
    }
    text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    _save(folder / "manifest.json", lambda temporary: temporary.write_text(text))
    return measured
