"""How the embedded models are trained: `python -m experiments train vit-d6-h4 resnet-d20`.

Longer than two screens because one run, from recipe to published weights, reads best in one piece.
"""

import json
import math
import pickle
import time
from collections.abc import Iterator
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from accelerate import Accelerator
from timm.optim import create_optimizer_v2
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from experiments.engine.files import alone, replace
from experiments.engine.provenance import provenance
from experiments.training.recipes import Recipe, recipe_of
from utils.measures.responses import finite_logits
from utils.models import zoo
from utils.models.architectures import CNNS, Spec, build, forward_flops
from utils.models.checkpoints import fill, fitting

LOSS_HORIZON = 50  # steps over which the running mean of the training loss forgets
ROUNDS = 5  # an epoch has this many; after each, the model is validated and its state saved
PATIENCE = 60  # seconds to wait for another process that publishes
WATCHED = 1000  # validation images that are looked at after each round; all of them at the end


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
        (finite_logits(model(x.to(device)), model).argmax(1) == y.to(device)).sum().item()
        for x, y in zip(images.split(500), labels.split(500), strict=True)
    )
    model.train(training)
    return hits / len(images)


def _save(file: Path, write) -> None:
    """Write through a temporary file; NotWritten if it fails."""
    replace(file, write, "what was there before is intact, and the same command goes on from it")


def _save_json(file: Path, content: dict, **options) -> None:
    text = json.dumps(content, **options) + "\n"
    _save(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _read(file: Path, read):
    """What a file of a run holds; ValueError where it is damaged."""
    try:
        return read(file)
    except (OSError, EOFError, ValueError, RuntimeError, LookupError, pickle.UnpicklingError):
        raise ValueError(
            f"{file} is damaged: put back a sound copy, or move {file.parent} away to train again."
        ) from None


def _load(file: Path) -> dict:
    return _read(file, lambda file: torch.load(file, map_location="cpu", weights_only=True))


def _load_json(file: Path) -> dict:
    return _read(file, lambda file: json.loads(file.read_text(encoding="utf-8")))


def _save_half(model: nn.Module, file: Path) -> None:
    weights = {
        key: (value.half() if value.is_floating_point() else value).cpu().contiguous()
        for key, value in model.state_dict().items()
    }
    _save(file, lambda temporary: safetensors.torch.save_file(weights, temporary))


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    settings = dict(lr=recipe.lr, weight_decay=recipe.weight_decay)
    if "muon" not in recipe.optimizer:
        return create_optimizer_v2(model, recipe.optimizer, fused=True, **settings)
    if not hasattr(model, "blocks"):
        raise ValueError(
            f"{recipe.optimizer} is for the blocks of a Transformer, and {type(model).__name__} "
            "has none: set another optimizer."
        )
    inner = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and module is not model.get_classifier()
    }
    thirds = {id(whole): (whole, parts) for whole, parts in _queries_keys_values(model)}
    groups = ({"params": []}, {"params": [], "use_fallback": True})
    for parameter in model.parameters():
        _, parts = thirds.get(id(parameter), (None, [parameter]))
        groups[id(parameter) not in inner]["params"].extend(parts)
    optimizer = create_optimizer_v2(
        groups,
        recipe.optimizer,
        adjust_lr_fn="original",
        fallback_lr_scale=recipe.fallback,
        **settings,
    )

    def hand_over(*_) -> None:
        for whole, parts in thirds.values():
            for part, gradient in zip(parts, whole.grad.chunk(3), strict=True):
                part.grad = gradient
            whole.grad = None  # the optimiser, which does not know it, would not

    optimizer.register_step_pre_hook(hand_over)
    return optimizer


def _queries_keys_values(model: nn.Module) -> Iterator[tuple[nn.Parameter, list[nn.Parameter]]]:
    """The weights that hold queries, keys and values in one matrix, and its three parts in place.

    Muon makes all singular values of an update equal. In one matrix the three would share them, and
    what one of them needs most could be drowned by another.
    """
    for module in model.modules():
        if isinstance(joint := getattr(module, "qkv", None), nn.Linear):
            yield joint.weight, [nn.Parameter(part) for part in joint.weight.detach().chunk(3)]


def train(
    name: str,
    train,
    validation,
    recipe: Recipe | None = None,
    out: Path = Path("_runs"),
    source: str | None = None,
) -> Path:
    """Train the model called `name`, or go on where an interrupted call stopped; gives its folder.

    `train` is `views.Fixed` or `views.Fresh`, `validation` has `images` [n, 3, 32, 32] float32 in
    [0, 1] and `labels` [n] int64; `source` says what they are, such as "cifar10-jpeg" (the model's
    rung if None). The folder, `out/name`, gets state.pt (after every round, see ROUNDS),
    loss-<nats>.safetensors (see `Recipe.branches`), and at the end final.safetensors and
    record.json (recipe, curve, FLOPs, time, device, versions). A resumed run equals an
    uninterrupted one bit for bit on the same machine, and a finished one returns at once. One
    process trains one model: start several to fill a GPU.
    Raises ValueError for empty data, a damaged file, or a folder begun with another recipe or other
    images, NotWritten where the disk is full, BlockingIOError while another process trains there,
    and FloatingPointError when the loss is not finite.
    """
    spec = zoo.spec(name)
    recipe = recipe or recipe_of(spec)
    for split, images in (("training", train), ("validation", validation.images)):
        if not len(images):
            raise ValueError(f"The {split} set for {name} is empty; load at least one image.")
    folder = Path(out) / spec.short
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"by another process in {folder}: wait for it, or train other models."
    with alone(folder / "lock", f"{spec.short} is being trained {busy}"):
        return _train(spec, recipe, train, validation, folder, source)


def _train(spec: Spec, recipe: Recipe, train, validation, folder: Path, source) -> Path:
    # As it will be read back, so that tuples and lists compare equal.
    begun_with = json.loads(json.dumps({"recipe": asdict(recipe), "images": train.digest}))
    run = _Run(spec, recipe, train)
    state = None
    if (folder / "state.pt").exists():
        state = _load(folder / "state.pt")
        if not isinstance(state, dict) or state.get("begun_with") != begun_with:
            raise ValueError(
                f"{folder} was begun with another recipe or other images; "
                "delete it to start again, or train into another folder."
            )
        if (folder / "record.json").exists():
            return folder
        run.restore(state)
    progress = state["progress"] if state else {"seconds": 0.0, "curve": []}

    bar = tqdm(total=run.steps, initial=run.step, desc=spec.short, leave=False, disable=None)
    try:
        while run.step < run.steps:
            started = time.perf_counter()
            stop = min(run.steps, run.step + run.round)
            loss = run.advance(stop, bar, folder)
            seen = WATCHED if stop < run.steps else len(validation.labels)
            right = accuracy(run.model, validation.images[:seen], validation.labels[:seen])
            progress["seconds"] += time.perf_counter() - started
            progress["curve"].append(
                {
                    "epoch": round(run.step / run.steps_per_epoch, 3),
                    "train_loss": loss,
                    "validation_accuracy": right,
                    "validation_images": min(seen, len(validation.labels)),
                }
            )
            state = {"begun_with": begun_with, "progress": progress, **run.state()}
            _save(folder / "state.pt", lambda file, state=state: torch.save(state, file))
            tqdm.write(
                f"{spec.short} epoch {run.step / run.steps_per_epoch:.1f}/{recipe.epochs:g}: loss "
                f"{loss:.3f} nats, validation {right:.1%}, {progress['seconds']:.0f} s so far"
            )
        model = run.accelerator.unwrap_model(run.model)
        _save_half(model, folder / "final.safetensors")  # before its branches change it
        started = time.perf_counter()
        branches = _branches(run, folder, bar)
        progress["seconds"] += time.perf_counter() - started
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"Training of {spec.short} was interrupted: {len(progress['curve'])} rounds of "
            f"{math.ceil(run.steps / run.round)} are safe in {folder}, and the same command goes "
            "on from there."
        ) from None
    finally:
        bar.close()

    record = {
        "name": spec.canonical,
        "trained_on": source or spec.rung,
        "images_sha256": train.digest,
        "views": round(recipe.epochs * len(train)),
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "flops": forward_flops(model.eval()),
        "recipe": asdict(recipe),
        "seconds": round(progress["seconds"], 1),
        "curve": progress["curve"],
        "branches": branches,
        **provenance(run.accelerator.device),
    }
    # Three forward passes' worth of arithmetic an image: forward, and backward at twice its cost.
    record["training_flops"] = 3 * record["flops"] * record["views"]
    _save_json(folder / "record.json", record, indent=1)
    return folder


class _Run:
    """A model in training: weights, optimiser and the step that it has reached.

    Nothing here draws random numbers (no dropout, no augmentation; the order of images depends on
    seed and epoch only), so that these are the whole state.
    """

    def __init__(self, spec: Spec, recipe: Recipe, train) -> None:
        self.spec, self.recipe, self.train = spec, recipe, train
        self.accelerator = Accelerator()  # device and precision, both settable by its variables
        model = build(spec).train()
        # A quarter less time on a CPU; a ViT gains nothing. Below eight channels (width 32), a
        # backward pass in this order of memory crashes on processors without AVX-512.
        if spec.family in CNNS and spec.width >= 32:
            model = model.to(memory_format=torch.channels_last)
        model = model.to(self.accelerator.device)  # before its weights are known to the optimiser
        self.model, self.optimizer = self.accelerator.prepare(model, _optimizer(model, recipe))
        self.steps_per_epoch = math.ceil(len(train) / recipe.batch_size)
        self.steps = round(recipe.epochs * self.steps_per_epoch)
        self.round = math.ceil(self.steps_per_epoch / ROUNDS)
        self.step, self.running_loss = 0, math.log(10)
        self._epoch = None

    def state(self) -> dict:
        model = self.accelerator.unwrap_model(self.model)
        kept = dict(step=self.step, running_loss=self.running_loss)
        return kept | {"model": model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict) -> None:
        self.accelerator.unwrap_model(self.model).load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.running_loss = state["step"], state["running_loss"]

    def _rows(self) -> torch.Tensor:
        """The rows of this step's batch, from the images of its epoch."""
        epoch, within = divmod(self.step, self.steps_per_epoch)
        if self._epoch != epoch:
            size, fixed = self.recipe.batch_size, self.spec.data_percent < 100
            self._order = list(batches(len(self.train), self.spec, epoch, size))
            # A share of the data is a share of the first epoch's images.
            self.images, self.labels = (
                tensor.to(self.accelerator.device)
                for tensor in self.train.epoch(0 if fixed else epoch)
            )
            self._epoch = epoch
        return self._order[within]

    def advance(self, stop: int, bar: tqdm, folder: Path | None = None) -> float:
        """Train up to a step; gives the mean loss in nats.

        folder : of copies where the loss crosses one of the recipe's levels
        """
        total, seen = 0.0, 0
        while self.step < stop:
            rows, epochs = self._rows(), (self.step + 1) / self.steps_per_epoch
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.lr_at(epochs)
            images = self.images[rows]
            if images.dtype == torch.uint8:
                images = images.float() / 255
            loss = F.cross_entropy(self.model(images), self.labels[rows])
            self.optimizer.zero_grad()
            self.accelerator.backward(loss)
            nats = loss.item()
            if not math.isfinite(nats):
                raise FloatingPointError(
                    f"The loss of {self.spec.short} became {nats} in step {self.step + 1}; "
                    f"train again with a lower learning rate than {self.recipe.lr:g}."
                )
            self.optimizer.step()
            self.step += 1
            bar.update()
            total, seen = total + nats * len(rows), seen + len(rows)
            before = self.running_loss
            self.running_loss += (nats - before) / LOSS_HORIZON
            if folder is not None and self.recipe.is_constant(epochs):
                for level in self.recipe.branches:
                    file = folder / f"branch-{level}.pt"
                    if self.running_loss < level and not file.exists():
                        state = self.state()
                        _save(file, lambda file, state=state: torch.save(state, file))
        return total / seen


def _branches(run: _Run, folder: Path, bar: tqdm) -> dict[str, dict]:
    """Bring the copies that were kept at each level of the loss down to a rate of zero."""
    done, recipe = {}, run.recipe
    for level in recipe.branches:
        begun, file = folder / f"branch-{level}.pt", folder / f"loss-{level}.json"
        if begun.exists() and not file.exists():
            run.restore(_load(begun))
            epoch = run.step / run.steps_per_epoch
            run.recipe = recipe.straight(epoch)
            steps = round(recipe.branch * run.steps_per_epoch)
            bar.reset(steps)
            bar.set_description(f"{run.spec.short} at {level:g} nats")
            loss = run.advance(run.step + steps, bar)
            model = run.accelerator.unwrap_model(run.model)
            _save_half(model, file.with_suffix(".safetensors"))
            content = file.with_suffix(".safetensors").read_bytes()
            kept = {"epoch": epoch, "train_loss": loss, "sha256": sha256(content).hexdigest()}
            _save_json(file, kept)
        if file.exists():
            done[str(level)] = _load_json(file)
    return done


def publish(run: Path, test, folder: Path | None = None, kept: bool = True) -> float:
    """Put a finished run into the zoo; gives its accuracy in [0, 1] with the weights as stored.

    `run` is what `train` gave, `test` the held-out images and labels. Writes the fp16 weights and
    the manifest into `folder` (the zoo's own if None); without `kept` the manifest alone, and the
    weights stay where they are. Raises FileNotFoundError if the training has not ended, ValueError
    and CheckpointError for damaged files, and BlockingIOError while another process publishes for
    longer than a minute.
    """
    folder = folder or zoo.FOLDER
    stated, weights = run / "record.json", run / "final.safetensors"
    for file in (stated, weights):
        if not file.exists():
            raise FileNotFoundError(
                f"{run} holds no finished training ({file.name} is missing); run the same training "
                "command again to finish it."
            )
    record, content = _load_json(stated), weights.read_bytes()
    spec = Spec.parse(record.pop("name"))
    with fitting(weights, f"delete {run} and train it again"):
        model = fill(build(spec), safetensors.torch.load(content))
    measured = accuracy(model, test.images, test.labels)
    file = folder / f"{spec.short}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    busy = f"{folder} is being written by another process: publish {spec.short} again."
    with alone(folder / "lock", busy, PATIENCE):  # of several processes each adds its own
        if kept:
            _save(file, lambda temporary: temporary.write_bytes(content))
        entry = {
            "file": f"{spec.short}.safetensors" if kept else None,
            "bytes": len(content),
            "sha256": sha256(content).hexdigest(),
            "accuracy": measured,
            "accuracy_images": len(test.images),
            **record,
        }
        manifest = zoo.manifest(folder) | {spec.short: entry}
        _save_json(folder / "manifest.json", manifest, indent=1, sort_keys=True)
    return measured
