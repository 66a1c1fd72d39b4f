"""Exact ablation by the cheapest of the plans that are exact: chapter 5.1."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..activations import ActivationRecorder
from ..anatomy import attention_layers, token_layout
from ..attention import AttentionProbe
from ..hooks import closest, refuse_compiled, select
from .class_row import ClassRow
from .edits import applied
from .memory import SURELY, default_memory, largest_call
from .plans import CLASS_ROW, FULL, PLAIN, PREFIX, Plan, Planner
from .replay import Cut, record
from .specs import AblationSpec

Condition = AblationSpec | Sequence[AblationSpec]


class Ablator:
    """Runs a model with parts of it ablated, by the cheapest plan that is exact.

    model: any in eval mode. Conditions in the last two blocks of a timm Vision Transformer that
        pools by the class token cost about one forward pass together; elsewhere the blocks before
        the first ablated layer are run once.
    means: layer → what value="mean" puts in, see `fit_means`.
    memory: bytes that activations may take beside the model; a batch that needs more is split by
        images. The default is 2 GiB, on a CUDA device a quarter of its memory.

    A condition is a spec, or several that are applied together (all layers, say). ValueError for a
    compiled model, one in training mode, unknown layers, and sets that do not fit the model or the
    batch; RuntimeError if the model never comes to a layer. Explained in chapter 5.1.
    """

    def __init__(
        self,
        model: nn.Module,
        means: Mapping[str, Tensor] | None = None,
        memory: int | None = None,
    ) -> None:
        refuse_compiled(model)
        self.model, self.means, self.memory = model, dict(means or {}), memory
        self._attention, self._tokens = attention_layers(model), token_layout(model)
        self._planner = Planner(model)
        self._owner = type(model).__name__
        self._needs: dict[tuple, int] = {}  # bytes an image, by the shape of images and layers
        self._kept = 0  # bytes that the last batch needed beside the module calls

    def run(self, images: Tensor, conditions: Sequence[Condition] | AblationSpec) -> Tensor:
        """Logits [conditions, batch, classes]."""
        return self._all_parts(images, conditions, False)[1]

    def run_with_intact(
        self, images: Tensor, conditions: Sequence[Condition] | AblationSpec
    ) -> tuple[Tensor, Tensor]:
        """Logits [batch, classes] of the network as it is, and those of `run`."""
        return self._all_parts(images, conditions, True)

    def intact(self, images: Tensor) -> Tensor:
        """Logits [batch, classes] of the network as it is, split by images as in `run`."""
        return self.run(images, [[]])[0]

    def plan(self, conditions: Sequence[Condition] | AblationSpec, intact: bool = False) -> Plan:
        """How `run` will run these conditions, why, and what that costs."""
        return self._planner.plan(self._checked(conditions), intact)

    @torch.no_grad()
    def fit_means(self, batches: Iterable, layers: str | Iterable[str]) -> dict[str, Tensor]:
        """Measure the means over images of what layers hold, keep them for value="mean", and
        return them.

        batches: of images, or tuples that begin with images. layers: glob or globs of names.
        Attention layers give their mean map [heads, queries, keys] (with windows [windows, heads,
        queries, keys]), others the mean of what they put out. Accumulated in float64.
        """
        names = select(dict.fromkeys([*self._attention, *self._planner.order]), layers, self._owner)
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

    def _checked(self, conditions, batch: int | None = None) -> list[list[AblationSpec]]:
        """Each condition as the list of its specs that change something."""
        if self.model.training:
            raise ValueError(f"{self._owner} is in training mode: call its eval() first.")
        conditions = [conditions] if isinstance(conditions, AblationSpec) else list(conditions)
        if not conditions:
            raise ValueError("There is nothing to run: the list of conditions is empty.")
        lists = [[c] if isinstance(c, AblationSpec) else list(c) for c in conditions]
        for spec in (spec for specs in lists for spec in specs):
            if not isinstance(spec, AblationSpec):
                raise TypeError(
                    f"A condition is an AblationSpec or a sequence of them, not {spec!r}."
                )
            self._check(spec, batch)
        return [[spec for spec in specs if not spec.is_empty] for specs in lists]

    def _check(self, spec: AblationSpec, batch: int | None) -> None:
        names = self._attention if spec.on_attention else self._planner.order
        if not spec.module or spec.module not in names:
            kind = "attention layer" if spec.on_attention else "layer"
            near = closest(spec.layer, filter(None, names))
            known = f"the closest names are {near}" if near else "it has none"
            raise ValueError(f"No {kind} of {self._owner} is called {spec.layer!r}: {known}.")
        if spec.on_attention and spec.query_rows == "class" and not self._tokens.has_class_token:
            raise ValueError(
                f"{self._owner} has no class token, so {spec.layer!r} has no class row to ablate: "
                'use query_rows="all".'
            )
        if spec.value == "mean" and spec.layer not in self.means:
            raise ValueError(
                f"The ablation of {spec.layer!r} by the mean needs that mean: measure it with "
                "fit_means(batches, layers), or give Ablator(model, means={layer: tensor})."
            )
        given = spec.batch
        windows = spec.on_attention and batch and given and given % batch == 0
        if batch is not None and given not in (None, batch) and not windows:
            raise ValueError(
                f"The ablation of {spec.layer!r} is for {given} images, but the batch has {batch}."
            )

    def available(self, device: torch.device) -> int:
        """Bytes that activations, and the sets of conditions, may take on a device."""
        return self.memory or default_memory(device)

    def _all_parts(
        self, images: Tensor, conditions: Sequence[Condition] | AblationSpec, intact: bool
    ) -> tuple[Tensor | None, Tensor]:
        """Logits of the network as it is (None if not wanted), and of the conditions, stacked."""
        conditions = self._checked(conditions, len(images))
        parts = []
        # Outside inference mode, tensors count how often they are written to.
        with torch.inference_mode(False), torch.no_grad():
            images = images.clone() if images.is_inference() else images
            for part in self._parts(images, conditions):
                here = [[s.images(part, len(images)) for s in specs] for specs in conditions]
                parts.append(self._run(images[part], here, intact))
        whole, ablated = zip(*parts, strict=True)
        return torch.cat(whole) if intact else None, torch.cat(ablated, dim=1)

    def _parts(self, images: Tensor, conditions: list[list[AblationSpec]]) -> Iterator[slice]:
        """Slices of the batch that fit into memory. A first image alone shows what one needs."""
        memory = self.available(images.device)
        if images.nbytes * SURELY <= memory:
            yield slice(0, len(images))
            return
        layers = sorted({spec.layer for specs in conditions for spec in specs})
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
        whole, results = None, {}
        if chosen := [i for i, name in enumerate(each) if name == CLASS_ROW]:
            suffix = self._run_class_row(images, [conditions[i] for i in chosen])
            if suffix is None:
                return self._run(images, conditions, intact)
            *ablated, whole = suffix
            results |= zip(chosen, ablated, strict=True)
        layers = {
            i: frozenset(spec.module for spec in conditions[i])
            for i, name in enumerate(each)
            if name in (PREFIX, FULL)
        }
        cuts = {layers[i]: Cut(self.model, layers[i]) for i in layers if each[i] == PREFIX}
        to_end = intact and whole is None
        if cuts or to_end:
            logits = record(self.model, images, list(cuts.values()), to_end)
            whole = logits if to_end else whole
        specs = [spec for i in layers for spec in conditions[i]]
        changed: dict[str, int] = {}
        with applied(self.model, specs, self.means, changed) as use:
            for i in layers:
                use(conditions[i])
                cut = cuts.get(layers[i])
                with cut.replayed() if cut and cut.safe else nullcontext():
                    results[i] = self.model(images)
        self._kept = sum(cut.bytes for cut in cuts.values()) + 4 * max(changed.values(), default=0)
        return whole, torch.stack(
            [whole if name == PLAIN else results[i] for i, name in enumerate(each)]
        )

    def _run_class_row(
        self, images: Tensor, conditions: list[list[AblationSpec]]
    ) -> list[Tensor] | None:
        """Logits of the conditions, and of the network as it is.

        None if the first batch, which is also run in full, shows that the suffix does not hold.
        """
        planner = self._planner
        layers = {spec.layer for specs in conditions for spec in specs}
        start = min(planner.start(specs) for specs in conditions)
        compare = start < planner.compared
        suffix = ClassRow(self.model, images, layers, to_end=compare)
        memory = self.available(images.device)
        logits = suffix.run([*conditions, []], self.means, memory)
        if compare:
            planner.compared = start
            if not suffix.agrees(logits[-1]):
                planner.not_class_row = "its logits were not those of a full pass"
                return None
        return list(logits)
