"""What a network loses without one head: the map of layers × heads."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Literal

import numpy as np
import pandas as pd
from torch import Tensor, nn
from tqdm import tqdm

from ...probes import AblationSpec, Ablator, attention_layers
from ...probes.hooks import select
from ..statistics import bootstrap_means, percentiles
from .outcomes import Batches, Others, outcomes, ready
from .units import AttentionUnits, Named, QueryRows


def head_effects(
    model: nn.Module,
    batches: Batches,
    layers: str | Iterable[str] = "*",
    value: Literal["zero", "mean", "resample"] = "zero",
    *,
    rows: QueryRows | None = None,
    samples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    ablator: Ablator | None = None,
    others: Others | None = None,
) -> pd.DataFrame:
    """Remove each head alone, prefix tokens included.

    Args:
        model: A Transformer, in eval mode.
        batches: (images [b, 3, h, w], labels [b], index [b]) each.
        layers: Glob or globs of attention layers.
        value: "zero", "mean" or "resample", as for `ablation_profile`.
        rows: "class" for what the class token reads of the head, "all" for the whole head; None for
            the class row where there is a class token.
        samples: Bootstrap samples.
        confidence: Of the intervals.
        seed: Of the samples, and of the images that "resample" takes.
        ablator: As for `ablation_profile`.
        others: As for `ablation_profile`.

    Returns:
        One row for each layer, head (from 0) and quantity ("kl" and "margin" in nats, "accuracy" in
        0 …
        1), with what is lost as value, its low and high (a paired bootstrap over images), and n.

    Raises:
        ValueError: For batches without two images, another value, and as Ablator.

    Example:
        >>> import torch
        >>> from utils.measures.ablation import head_effects
        >>> from utils.models import zoo
        >>> from utils.stimuli import objects
        >>> stimuli = objects.load(n=8)
        >>> batches = [(stimuli.images, stimuli.labels, torch.arange(8))]
        >>> table = head_effects(zoo.load("vit-d6-h4"), batches, "blocks.5.attn", samples=100)
        >>> len(table), table["quantity"].unique().tolist()  # 4 heads × 3 quantities
        (12, ['kl', 'accuracy', 'margin'])
    """
    units = AttentionUnits(model, select(attention_layers(model), layers, type(model).__name__))
    if value not in ("zero", "mean", "resample"):
        raise ValueError(f"A head gives way to zero, mean or resample, not to {value!r}.")
    units.rows = rows or units.rows
    ablator = ablator or Ablator(model)
    batches, others = ready(value, units.layers, batches, ablator, others, seed)
    parts = []
    for images, labels, index in tqdm(batches, "heads", disable=None, leave=False):
        put: Mapping[str, Named | Tensor]
        if value == "resample":
            assert others is not None  # `ready` has found them
            put = units.held(others(index).to(images))
        else:
            put = dict.fromkeys(units.layers, value)
        heads = {layer: found.mass.shape[1] for layer, found in units.read(images[:1]).items()}
        conditions = [
            (
                (layer, head),
                [AblationSpec(layer, heads=[head], query_rows=units.rows, value=put[layer])],
            )
            for layer, count in heads.items()
            for head in range(count)
        ]
        keys, found = outcomes(ablator, images, labels, conditions)
        right = found.right.astype(np.float64)
        parts.append((found.kl[1:], right[:1] - right[1:], found.margin[:1] - found.margin[1:]))
    if not parts:
        raise ValueError("There is nothing to remove heads from: the batches hold no images.")
    names = ("kl", "accuracy", "margin")
    tables: dict[Hashable, np.ndarray] = {
        name: np.concatenate([p[i] for p in parts], 1).T for i, name in enumerate(names)
    }
    means = bootstrap_means(tables, samples, seed)  # [1 + samples, heads of all layers]
    return pd.DataFrame(
        {"layer": layer, "head": head, "quantity": name}
        | _interval(percentiles(means[name][:, i], len(tables[name]), confidence))
        for i, (layer, head) in enumerate(keys)
        for name in names
    )


def _interval(found) -> dict:
    return {"value": found.estimate, "low": found.low, "high": found.high, "n": found.n}
