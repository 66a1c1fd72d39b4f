"""What the figures of Hu, Zhang and Zhao show of class rows, and of tokens with a large norm."""

from collections.abc import Iterator
from itertools import pairwise, product

import torch
from torch import Tensor

from experiments.engine.metrics import ImageMean, Metrics, merged
from experiments.tasks.ablate import ablatable
from utils.measures import sparsity
from utils.measures.agreement import standard_ranks
from utils.probes import ActivationRecorder, AttentionProbe, token_layout
from utils.probes.anatomy import block_names

COLUMNS = ("quantity", "layer", "other", "head", "unit", "place", "value", "sd", "n")
BINS = torch.arange(0, 6.01, 0.1)  # of −log10 of a weight; what is beyond is in the last
STRONGEST = 10  # places of a row
HIGH = 2.0  # medians of a picture's patch tokens: a norm above that is large


class ClassRows:
    """The task of `replicate hu2023-maps`: class rows as they are, without class → class.

    quantity : "pooled_correlation" of the flattened weights of all images and patches, of two
        layers (averaged over heads) or of two heads of the last; "log_share" of the weights with
        −log10 in the bin that begins at `place`, of layers averaged over heads and of single heads
        (unit); "above_uniform", the share of weights above 1 / patches; "strongest_share", how the
        ten strongest places of a row of the last layer are spread over the grid, of each head and
        of their average; "other_image", the rank correlation of a head's map with that for the
        next image of the minibatch.
        Of tokens behind each block: "largest_norm" in medians of the picture, "high_tokens", how
        many patch tokens are above HIGH medians, "high_share", where those are. Of the attention
        layer that reads them (of the next block): "high_mass", their share of the mass on patches,
        "gini" of rows renormalised over patches, and "gini_without_high" over the other patches;
        "gini_without_random" over as many, chosen by the other image's tokens.
    Nothing is drawn: `seed` is taken as other tasks take it.
    """

    columns = COLUMNS

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def run(self, model, condition, batches, ranks) -> tuple[list[dict], dict]:
        """The table of all ranks' minibatches."""

        def read() -> Metrics:
            layers, blocks = ablatable(model, "attention"), block_names(model)
            here = Metrics()
            for images, *_ in batches:
                with (
                    torch.inference_mode(),
                    AttentionProbe(model, layers, "class") as probe,
                    ActivationRecorder(model, blocks) as record,
                ):
                    model(images)
                prefix = token_layout(model).prefix
                maps = {x: probe.maps[x][:, :, 0, prefix:].double().cpu() for x in layers}
                norms = {x: record.outputs[x][:, prefix:].float().norm(dim=-1) for x in blocks}
                _attention(here, maps)
                _tokens(here, maps, {x: each.double().cpu() for x, each in norms.items()})
            return here.parcel()

        parts = ranks.gather(ranks.together(read))
        return ranks.on_main(lambda: (list(_rows(merged(parts))), {}))

    def plan(self, model, condition, batches) -> str:
        """What is read."""
        return "class rows and norms of tokens in one forward pass"


def _attention(here: Metrics, maps: dict[str, Tensor]) -> None:
    last = list(maps)[-1]
    averaged = {layer: x.mean(1) for layer, x in maps.items()}  # [batch, patches]
    for unit, x in (
        ("layers", torch.stack(list(averaged.values()), 1)),
        ("heads", maps[last]),
    ):  # means over patches of each image; patches are as many in all, so these can be averaged
        here.of(("mean", unit)).update(x.mean(-1))
        here.of(("product", unit)).update(torch.einsum("bhk,bgk->bhg", x, x) / x.shape[-1])
    for layer, x in maps.items():
        for unit, each in (("head-averaged", averaged[layer][:, None]), ("per head", x)):
            logs = -each.clamp(min=1e-30).log10()
            at = torch.bucketize(logs, BINS.double(), right=True).sub(1).clamp(0, len(BINS) - 1)
            counts = torch.nn.functional.one_hot(at, len(BINS)).double().mean((1, 2))
            here.of(("log_share", layer, unit)).update(counts)
            above = (each > 1 / each.shape[-1]).double().mean((1, 2))
            here.of(("above_uniform", layer, unit)).update(above)
        ranked = standard_ranks(x)
        other = (ranked * ranked.roll(1, 0)).sum(-1)
        here.of(("other_image", layer)).update(other if len(x) > 1 else other * torch.nan)
    for unit, x in (("per head", maps[last]), ("head-averaged", averaged[last][:, None])):
        top = torch.zeros_like(x).scatter(-1, x.topk(min(STRONGEST, x.shape[-1])).indices, 1.0)
        here.of(("strongest_share", last, unit)).update(top / top.sum(-1, keepdim=True))


def _tokens(here: Metrics, maps: dict[str, Tensor], norms: dict[str, Tensor]) -> None:
    blocks = list(norms)
    readers = {  # block → the attention layer in the block that follows it, if there is one
        block: layer
        for block, after in pairwise(blocks)
        for layer in maps
        if layer.startswith(f"{after}.")
    }
    for block, norm in norms.items():
        norm = norm / norm.median(-1, keepdim=True).values
        high = norm > HIGH
        here.of(("largest_norm", block)).update(norm.amax(-1))
        here.of(("high_tokens", block)).update(high.sum(-1).double())
        here.of(("high_share", block)).update(high.double())
        if block not in readers:
            continue
        layer = readers[block]
        rows = maps[layer] / maps[layer].sum(-1, keepdim=True)
        mass = (rows * high[:, None]).sum(-1)
        here.of(("high_mass", layer)).update(mass)
        here.of(("gini", layer)).update(sparsity.gini(rows))
        for quantity, left_out in (("high", high), ("random", high.roll(1, 0))):
            kept = [sparsity.gini(row[:, ~out]) for row, out in zip(rows, left_out, strict=True)]
            here.of((f"gini_without_{quantity}", layer)).update(torch.stack(kept))


def _rows(metrics: Metrics) -> Iterator[dict]:
    """One row for every number: the metrics' means over images, correlations made of two."""
    names = [key[1] for key in metrics if key[0] == "other_image"]
    for key, metric in metrics.items():
        found = metric.compute()
        quantity, layer = key[:2]
        if quantity == "product":
            yield from _correlations(metrics["mean", layer], found, layer, names)
            continue
        if quantity == "mean":
            continue
        place = {"quantity": quantity, "layer": layer, "unit": key[2] if len(key) > 2 else None}
        mean, sd = found.mean, found.sd
        if quantity in ("log_share", "high_share"):
            for at in range(len(mean)):
                if mean[at] > 0:
                    begins = round(float(BINS[at]), 1) if quantity == "log_share" else at
                    yield {**place, "place": begins, "value": mean[at].item(), "n": found.stimuli}
        elif quantity == "strongest_share":
            for head, at in product(*map(range, mean.shape)):
                number = {"value": mean[head, at].item(), "n": found.stimuli}
                yield {**place, "head": head, "place": at, **number}
        else:
            heads = range(len(mean)) if mean.ndim else [None]
            for head, value, spread in zip(
                heads, mean.flatten().tolist(), sd.flatten().tolist(), strict=True
            ):
                yield {**place, "head": head, "value": value, "sd": spread, "n": found.stimuli}


def _correlations(mean: ImageMean, product_, unit: str, layers: list[str]) -> Iterator[dict]:
    """np.corrcoef of the flattened weights, from means over images and patches."""
    mu, second = mean.compute().mean, product_.mean
    covariance = second - mu[:, None] * mu
    spread = covariance.diagonal().sqrt()
    found = covariance / (spread[:, None] * spread)
    for i, j in product(range(len(mu)), repeat=2):
        place = {"quantity": "pooled_correlation", "unit": unit, "n": product_.stimuli}
        if unit == "layers":
            place |= {"layer": layers[i], "other": layers[j]}
        else:
            place |= {"layer": layers[-1], "head": i, "place": j}
        yield {**place, "value": found[i, j].item()}
