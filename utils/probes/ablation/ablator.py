"""Exact ablation by the cheapest of the plans that are exact: chapter 5.1."""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from typing import Any, cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from tqdm import tqdm

from ..activations import ActivationRecorder
from ..anatomy import attention_layers, token_layout
from ..attention import AttentionProbe
from ..channels import follow_channels
from ..hooks import closest, listed, refuse_compiled, select, shown
from ..modes import refuse_training
from .class_row import ClassRow
from .edits import applied
from .memory import SURELY, default_memory, largest_call
from .plans import CLASS_ROW, FULL, PLAIN, PREFIX, Plan, Planner
from .plans import layers as affected
from .replay import Cut, holds, record
from .specs import AblationSpec

Ablation = AblationSpec | Sequence[AblationSpec]


class Ablator:
    """Runs a model with parts of it ablated, by the cheapest plan that is exact.

    A condition is a spec, or several that are applied together (all layers, say). Conditions in the
    last two blocks of a timm Vision Transformer that pools by the class token cost about one
    forward pass together; elsewhere the blocks before the first ablated layer are run once.
    Explained in chapter 5.1.

    Args:
        model: Any model in eval mode.
        means: Layer → what value="mean" puts in; `fit_means` measures and adds them.
        memory: Bytes that activations may take on top of the model; a batch that needs more is
            split by images. The default is 2 GiB, on a CUDA device a quarter of its memory.

    Attributes:
        last_plan: The plan of the last run, as it was made beforehand; None before the first.
        ran: How many conditions have been run so far, by the name of their plan.
        block_calls: The forward calls of blocks that the plans so far have stated.

    Raises:
        ValueError: For a compiled model, one in training mode, unknown layers, and sets that do not
            fit the model or the batch.
        TypeError: For conditions that are not made of specs.
        RuntimeError: If the model never calls a layer.

    Example:
        >>> import timm, torch
        >>> from utils.probes import AblationSpec, Ablator
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=48, depth=4).eval()
        >>> images = torch.rand(4, 3, 48, 48)
        >>> ablator = Ablator(model)
        >>> heads = [AblationSpec(model.blocks[3].attn, heads=head) for head in range(3)]
        >>> together = [AblationSpec(model.blocks[i].attn, heads=0) for i in range(4)]
        >>> intact, ablated = ablator.run_with_intact(images, [*heads, together])
        >>> intact.shape, ablated.shape
        (torch.Size([4, 1000]), torch.Size([4, 4, 1000]))
        >>> ablator
        <Ablator of VisionTransformer: 4 blocks, no means, ran class-token suffix + full run>
        >>> ablator.plan(heads).block_calls
        4
    """

    def __init__(
        self,
        model: nn.Module,
        means: Mapping[str, Tensor] | None = None,
        memory: int | None = None,
    ) -> None:
        refuse_compiled(model)
        self.model, self.means, self.memory = model, dict(means or {}), memory
        self.last_plan: Plan | None = None
        self.ran: Counter[str] = Counter()
        self.block_calls = 0
        self._attention, self._tokens = attention_layers(model), token_layout(model)
        self._names = {module: name for name, module in model.named_modules()}
        self._planner = Planner(model)
        self._owner = type(model).__name__
        self._needs: dict[tuple, int] = {}  # bytes an image, by the shape of images and layers
        self._kept = 0  # bytes that the last batch needed on top of the module calls

    def __repr__(self) -> str:
        means = f"means of {listed(self.means)}" if self.means else "no means"
        ran = f"ran {' + '.join(self.ran)}" if self.ran else "nothing run yet"
        return f"<Ablator of {self._owner}: {len(self._planner.blocks)} blocks, {means}, {ran}>"

    def run(self, images: Tensor, conditions: Sequence[Ablation] | AblationSpec) -> Tensor:
        """The logits of each condition.

        Args:
            images: [batch, 3, height, width], or whatever the model takes.
            conditions: One spec or more; several to be applied together in a list of their own.

        Returns:
            Logits [conditions, batch, classes].

        Example:
            >>> import timm, torch
            >>> from utils.probes import AblationSpec, Ablator
            >>> model = timm.create_model("resnet18").eval()
            >>> channel = AblationSpec(model.layer3[0], channels=7)
            >>> Ablator(model).run(torch.rand(2, 3, 64, 64), channel).shape
            torch.Size([1, 2, 1000])
        """
        return self._run_parts(images, conditions, False)[1]

    def run_with_intact(
        self, images: Tensor, conditions: Sequence[Ablation] | AblationSpec
    ) -> tuple[Tensor, Tensor]:
        """The logits of the network as it is, and those of each condition.

        Args:
            images: As for `run`.
            conditions: As for `run`.

        Returns:
            Logits [batch, classes] and [conditions, batch, classes].
        """
        whole, ablated = self._run_parts(images, conditions, True)
        return torch.cat(whole), ablated

    def intact(self, images: Tensor) -> Tensor:
        """The logits of the network as it is.

        Args:
            images: As for `run`, and split in the same way.

        Returns:
            Logits [batch, classes].
        """
        return self.run(images, [[]])[0]

    def plan(self, conditions: Sequence[Ablation] | AblationSpec, intact: bool = False) -> Plan:
        """How conditions will be run, why, and what that costs; nothing is run.

        Args:
            conditions: As for `run`.
            intact: Whether the logits of the network as it is are wanted too.

        Returns:
            The plan.
        """
        return self._planner.plan(self._checked(conditions), intact)

    @torch.no_grad()
    def fit_means(
        self, batches: Iterable, layers: str | nn.Module | Iterable[str | nn.Module]
    ) -> dict[str, Tensor]:
        """Measure the means over images of what layers hold, and keep them for value="mean".

        Accumulated in float64.

        Args:
            batches: Batches of images, or tuples that begin with images.
            layers: Names, globs or modules, one or several.

        Returns:
            Layer → mean; of attention layers the mean map [heads, queries, keys] (with windows
            [windows, heads, queries, keys]), of others the mean of what they put out.

        Example:
            >>> import timm, torch
            >>> from utils.probes import Ablator
            >>> model = timm.create_model("vit_tiny_patch16_224", img_size=48, depth=2).eval()
            >>> means = Ablator(model).fit_means([torch.rand(4, 3, 48, 48)], model.blocks[0].attn)
            >>> means["blocks.0.attn"].shape
            torch.Size([3, 10, 10])
        """
        refuse_training(self.model)
        known = self._attention | {name: module for module, name in self._names.items()}
        names = select(known, layers, self._owner)
        maps = [name for name in names if name in self._attention]
        outputs = [name for name in names if name and name not in self._attention]
        sums: dict[str, Tensor] = {}
        count = seen = 0

        def add(layer: str, values: Tensor) -> None:
            values = values.cpu() if values.device.type == "mps" else values  # it has no float64
            total = values.unflatten(0, (count, -1)).sum(0, dtype=torch.float64)
            sums[layer] = sums[layer] + total if layer in sums else total

        with ExitStack() as stack:
            if maps:
                stack.enter_context(AttentionProbe(self.model, maps, rows="all", reduce=add))
            if outputs:
                stack.enter_context(ActivationRecorder(self.model, outputs, reduce=add))
            for batch in tqdm(batches, "means", disable=None, leave=False):
                images = batch if isinstance(batch, Tensor) else batch[0]
                count = len(images)
                seen += count
                self.model(images)
        means = {layer: (total / seen).float() for layer, total in sums.items()}
        means = {layer: mean[0] if len(mean) == 1 else mean for layer, mean in means.items()}
        self.means |= means
        return means

    def available(self, device: torch.device) -> int:
        """Bytes that activations, and the sets of conditions, may take on a device.

        Args:
            device: The device that the images are on.

        Returns:
            The `memory` that was given, or the default for the device.
        """
        return self.memory or default_memory(device)

    def _checked(self, conditions, batch: int | None = None) -> list[list[AblationSpec]]:
        """Each condition as the list of its specs that change something, with names of layers."""
        refuse_training(self.model)
        lists = []
        for condition in _several(conditions):
            specs = [self._named(spec) for spec in _several(condition)]
            for spec in specs:
                self._check(spec, batch)
            lists.append([spec for spec in specs if not spec.is_empty])
        if not lists:
            raise ValueError("There is nothing to run: the list of conditions is empty.")
        return lists

    def _named(self, spec: AblationSpec) -> AblationSpec:
        """The spec with the name of its layer."""
        if not isinstance(spec, AblationSpec):
            raise _no_condition(spec)
        if isinstance(spec.layer, str):
            return spec
        if not (name := self._names.get(spec.layer)):
            raise ValueError(
                f"This {shown(spec.layer)} is no layer of the {self._owner} that is to be ablated: "
                "give one of its own modules, or a name."
            )
        return spec.named(name)

    def _check(self, spec: AblationSpec, batch: int | None) -> None:
        names = self._attention if spec.on_attention else self._planner.order
        if not spec.module or spec.module not in names:
            kind = "attention layer" if spec.on_attention else "layer"
            near = closest(spec.name, filter(None, names))
            known = f"the closest names are {near}" if near else "it has none"
            glob = " (one spec ablates one layer, so globs are not for it)"
            known += glob if "*" in spec.name else ""
            raise ValueError(f"No {kind} of {self._owner} is called {spec.name!r}: {known}.")
        if spec.on_attention and spec.query_rows == "class" and not self._tokens.has_class_token:
            raise ValueError(
                f"{self._owner} has no class token, so {spec.name!r} has no class row to ablate: "
                'use query_rows="all".'
            )
        if isinstance(spec.value, str) and spec.value == "mean" and spec.name not in self.means:
            raise ValueError(
                f"The ablation of {spec.name!r} by the mean needs that mean: measure it with "
                "fit_means(batches, layers), or give Ablator(model, means={layer: tensor})."
            )
        given = spec.batch
        windows = spec.on_attention and batch and given and given % batch == 0
        if batch is not None and given not in (None, batch) and not windows:
            raise ValueError(
                f"The ablation of {spec.name!r} is for {given} images, but the batch has {batch}."
            )

    def _run_parts(
        self, images: Tensor, conditions: Sequence[Ablation] | AblationSpec, intact: bool
    ) -> tuple[list[Any], Tensor]:
        """Logits of the network as it is in parts (None if not wanted), and of the conditions."""
        checked = self._checked(conditions, len(images))
        plan = self.last_plan = self._planner.plan(checked, intact)
        self.ran.update(plan.each)
        self.block_calls += plan.block_calls
        parts = []
        # Outside inference mode, tensors count how often they are written to.
        with torch.inference_mode(False), torch.no_grad():
            images = images.clone() if images.is_inference() else images
            self._look(images[:1], checked)
            for part in self._parts(images, checked):
                here = [[s.images(part, len(images)) for s in specs] for specs in checked]
                parts.append(self._run(images[part], here, intact))
        whole, ablated = zip(*parts, strict=True)
        return list(whole), torch.cat(ablated, dim=1)

    def _look(self, image: Tensor, conditions: list[list[AblationSpec]]) -> None:
        """Find out on one image, once, what the plan of conditions takes for granted."""
        planner = self._planner
        if planner.faces(conditions):
            follow_channels(self.model, image)
        if not (unheld := planner.unheld(conditions)):
            return
        found = dict(zip(unheld, holds(self.model, image, unheld), strict=True))
        planner.held |= {layers: bool(held) for layers, held in found.items()}
        if wrong := [layers for layers, held in found.items() if held is False]:
            planner.not_prefix = "its logits were not those of a full pass"
            warnings.warn(
                f"{self._owner} is run in full for each condition, which is exact but slow: when "
                f"what comes before {listed(sorted(wrong[0]))} was not repeated, its logits were "
                "not those of a full pass.",
                stacklevel=4,
            )

    def _logits(self, images: Tensor) -> Tensor:
        return self._checked_logits(self.model(images))

    def _checked_logits(self, logits: Any) -> Tensor:
        if not isinstance(logits, Tensor):
            raise TypeError(
                f"{self._owner} puts out a {type(logits).__name__}, not a tensor of logits: put "
                "it into a module that returns them, such as those in .logits."
            )
        return logits

    def _parts(self, images: Tensor, conditions: list[list[AblationSpec]]) -> Iterator[slice]:
        """Slices of the batch that fit into memory. A first image alone shows what one needs."""
        memory = self.available(images.device)
        if images.nbytes * SURELY <= memory:
            yield slice(0, len(images))
            return
        layers = sorted({spec.name for specs in conditions for spec in specs})
        key = (*images.shape[1:], *layers)
        done = 0
        if key not in self._needs:
            with largest_call(self.model) as largest:
                yield slice(0, 1)
            self._needs[key] = 4 * max(largest.values()) + self._kept
            done = 1
        size = max(1, memory // self._needs[key])
        for start in range(done, len(images), size):
            yield slice(start, min(start + size, len(images)))

    def _run(
        self, images: Tensor, conditions: list[list[AblationSpec]], intact: bool
    ) -> tuple[Tensor | None, Tensor]:
        """Logits of the network as it is (None if not wanted), and of the conditions, stacked."""
        each = [self._planner.of(specs) for specs in conditions]
        intact = intact or PLAIN in each
        whole, results = None, dict[int, Any]()
        if chosen := [i for i, name in enumerate(each) if name == CLASS_ROW]:
            suffix = self._run_class_row(images, [conditions[i] for i in chosen])
            if suffix is None:
                return self._run(images, conditions, intact)
            *ablated, whole = suffix
            results |= zip(chosen, ablated, strict=True)
        layers = {
            i: affected(conditions[i]) for i, name in enumerate(each) if name in (PREFIX, FULL)
        }
        cuts = {layers[i]: Cut(self.model, layers[i]) for i in layers if each[i] == PREFIX}
        to_end = intact and whole is None
        if cuts or to_end:
            logits = record(self.model, images, list(cuts.values()), to_end)
            whole = self._checked_logits(logits) if to_end else whole
        specs = [spec for i in layers for spec in conditions[i]]
        changed: dict[str, int] = {}
        with applied(self.model, specs, self.means, changed) as use:
            for i in layers:
                use(conditions[i])
                cut = cuts.get(layers[i])
                with cut.replayed() if cut and cut.safe else nullcontext():
                    results[i] = self._logits(images)
        self._kept = sum(cut.bytes for cut in cuts.values()) + 4 * max(changed.values(), default=0)
        results |= {i: whole for i, name in enumerate(each) if name == PLAIN}
        return whole, torch.stack([results[i] for i in range(len(each))])

    def _run_class_row(
        self, images: Tensor, conditions: list[list[AblationSpec]]
    ) -> list[Tensor] | None:
        """Logits of the conditions, and of the network as it is.

        None if the first batch, which is also run in full, shows that the suffix does not hold.
        """
        planner = self._planner
        layers = {spec.name for specs in conditions for spec in specs}
        start = min(planner.start(specs) for specs in conditions)
        compare = start < planner.compared
        model = cast(VisionTransformer, self.model)
        suffix = ClassRow(model, images, layers, to_end=compare)
        memory = self.available(images.device)
        logits = suffix.run([*conditions, []], self.means, memory)
        if compare:
            planner.compared = start
            if not suffix.agrees(logits[-1]):
                planner.not_class_row = "its logits were not those of a full pass"
                return None
        return list(logits)


def _several(given) -> list:
    """One spec or a sequence of specs (or of conditions) as a list."""
    if isinstance(given, AblationSpec):
        return [given]
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise _no_condition(given)
    return list(given)


def _no_condition(given) -> TypeError:
    return TypeError(f"A condition is an AblationSpec or a sequence of them, not {given!r}.")
