"""Responses, logits and values that are no numbers, or so large or small that squares are none."""

import math
import warnings
from fractions import Fraction
from functools import cache, partial
from itertools import product

import numpy as np
import torch
from torch import nn

from experiments.tasks.behave import Behaviour
from experiments.tasks.measure import Measurement
from experiments.training import trainer
from faults.case import Case
from utils.measures import (
    agreement,
    attention_geometry,
    behaviour,
    decoding,
    frequency,
    receptive_field,
    sparsity,
    statistics,
)
from utils.measures.similarity import MinibatchCKA, skip_branch_ratio
from utils.measures.sparsity import vector
from utils.models import zoo

INF, NAN = math.inf, math.nan
MEASURES = {name: getattr(sparsity, name) for name in vector.MEASURES}
SIGNED = [name for name, (_, signed) in vector.MEASURES.items() if signed]


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# --- measures of a vector: what they are by their definitions, in fractions


def exact(name, values) -> float:
    """A measure by its definition, in exact fractions as far as roots and logarithms allow."""
    r = [Fraction(float(value)) for value in values]
    n, total = len(r), sum(map(abs, r))
    if not total:
        return NAN
    if name == "active_fraction":
        return sum(x > 0 for x in r) / n
    if name == "excess_kurtosis":
        d = [x - sum(r) / n for x in r]
        second, fourth = sum(x**2 for x in d) / n, sum(x**4 for x in d) / n
        return float(fourth / second**2) - 3 if second else NAN
    if name == "gini":
        return float(sum(abs(x - y) for x in r for y in r) / (2 * n * sum(r)))
    if name == "normalised_entropy":
        shares = [float(x / total) for x in r if x]
        return -sum(p * math.log(p) for p in shares) / math.log(n)
    a = (sum(r) / n) ** 2 / (sum(x**2 for x in r) / n)
    if name == "treves_rolls":
        return float(a)
    if name == "vinje_gallant":
        return float((1 - a) / (1 - Fraction(1, n)))
    if name == "hoyer":
        return (math.sqrt(n) - math.sqrt(n * a)) / (math.sqrt(n) - 1)
    raise KeyError(f"{name} needs its definition here.")


PLAIN = [0.5, 3.0, 0.0, 1.25, 2.0, 0.75]
EXTREME = {
    "× 1e25": torch.tensor(PLAIN) * 1e25,
    "× 1e38": torch.tensor(PLAIN) * 1e38,
    "× 1e-30": torch.tensor(PLAIN) * 1e-30,
    "denormal": torch.tensor([1, 7, 0, 3, 2, 2]) * 1.4e-45,
    "float64 × 1e200": torch.tensor(PLAIN).double() * 1e200,
    "float64 × 5e307": torch.tensor(PLAIN).double() * 5e307,
    "float64 × 1e-200": torch.tensor(PLAIN).double() * 1e-200,
    "float64 denormal": torch.tensor([1, 7, 0, 3, 2, 2]).double() * 5e-324,
    "zeros": torch.zeros(6),
    "equal": torch.full((6,), 0.1),
    "one of many": torch.tensor([0.0] * 59 + [1e-3]),
    "half": torch.tensor(PLAIN).half() * 20000,
    "bfloat16": torch.tensor(PLAIN).bfloat16(),
    "int64": torch.tensor([5, 0, 3, 2**40, 1, 1]),
    "uint8": torch.tensor([255, 0, 3, 200, 1, 1], dtype=torch.uint8),
    "bool": torch.tensor([True, False, False, True, True, False]),
    "strided": torch.tensor(PLAIN).repeat_interleave(2)[::2],
    "with gradient": torch.tensor(PLAIN, requires_grad=True),
    "an array": np.array(PLAIN),
    "a list": PLAIN,
}
BAD = {
    "NaN": (torch.tensor([1.0, NAN, 2.0]), ("NaN or infinite",)),
    "inf": (torch.tensor([1.0, INF, 2.0]), ("NaN or infinite",)),
    "-inf": (torch.tensor([1.0, -INF, 2.0]), ("NaN or infinite",)),
    "NaN in a batch": (torch.tensor([[1.0, 2.0], [NAN, 1.0]]), ("NaN or infinite",)),
    "half that overflowed": (torch.tensor([1.0, 1e6]).half(), ("half precision overflows",)),
    "empty": (torch.zeros(0), ("empty",)),
    "empty in a batch": (torch.zeros(3, 0), ("empty",)),
    "one response": (torch.ones(3, 1), ("at least 2",)),
    "a number": (torch.tensor(1.0), ("at least 2",)),
    "complex": (torch.ones(3, dtype=torch.complex64), ("modulus",)),
    "text": (["a", "b"], ("numbers",)),
    "lists of unequal length": ([[1.0, 2.0], [1.0]], ("numbers",)),
    "nothing": (None, ("numbers",)),
}


def like(measure, x):
    """The measure; also of the responses in a batch, along another axis, and in another order."""
    found = measure(x)
    if isinstance(x, torch.Tensor) and x.ndim == 1:
        batch = torch.stack([x.detach(), x.detach().flip(0)])
        for other in (measure(batch), measure(batch.T.contiguous(), dim=0)):
            torch.testing.assert_close(other[0], found, rtol=1e-6, atol=0, equal_nan=True)
    return found


def known(name, x):
    values = x.detach().double() if isinstance(x, torch.Tensor) else x
    return np.array(exact(name, [float(value) for value in values]))


VECTORS = [
    Case(
        f"{name} of responses {what}",
        lambda _, args=(MEASURES[name], x): like(*args),
        lambda _, args=(name, x): known(*args),
        tolerance=1e-6,
    )
    for name, (what, x) in product(MEASURES, EXTREME.items())
] + [
    Case(f"{name} of {what}", lambda _, args=(MEASURES[name], x): args[0](args[1]), says=says)
    for name, (what, (x, says)) in product(MEASURES, BAD.items())
]
VECTORS += [
    Case(
        f"{name} of negative responses",
        lambda _, measure=measure: measure([1.0, -1.0, 2.0]),
        None if name not in SIGNED else lambda _, name=name: known(name, [1.0, -1.0, 2.0]),
        ("rectify",) if name not in SIGNED else (),
    )
    for name, measure in MEASURES.items()
] + [
    Case(
        f"{name} along an axis that is not there",
        lambda _, measure=measure: measure(torch.ones(3, 4), dim=2),
        says=("no axis 2",),
    )
    for name, measure in MEASURES.items()
]

THRESHOLDS = {"NaN": NAN, "infinity": INF, "text": "0.5", "nothing": None, "a flag": True}
VECTORS += [
    Case(
        f"a threshold of {what} for {name}",
        lambda _, args=(make, value): args[0](args[1]),
        says=("threshold", "finite number"),
    )
    for (name, make), (what, value) in product(
        {
            "active_fraction": lambda t: sparsity.active_fraction([1.0, 2.0], threshold=t),
            "LifetimeSparseness": lambda t: sparsity.LifetimeSparseness(threshold=t),
            "PopulationSparseness": lambda t: sparsity.PopulationSparseness(
                "active_fraction", threshold=t
            ),
        }.items(),
        THRESHOLDS.items(),
    )
    if not (name == "PopulationSparseness" and value is None)  # there it is the measure's own
]


# --- streams: the same values in whatever minibatches and scale


def streamed(make, x, sizes=(3, 5)):
    metric = make()
    for part in x.split(list(sizes)):
        metric.update(part)
    return metric.compute()


def lifetime(x, **options):
    found = streamed(partial(sparsity.LifetimeSparseness, **options), x)
    return [found.treves_rolls, found.vinje_gallant]


def lifetime_exact(x):
    units = x.double().T.tolist()
    return [
        np.array([exact(name, unit) for unit in units])
        for name in ("treves_rolls", "vinje_gallant")
    ]


SCALES = {
    "1e25": (1e25, torch.float32),
    "5e37": (5e37, torch.float32),
    "1e-30": (1e-30, torch.float32),
    "1e-40": (1e-40, torch.float32),
    "1e100 in float64": (1e100, torch.float64),
    "1e-100 in float64": (1e-100, torch.float64),
}
BEYOND = {"1e200": 1e200, "1e-200": 1e-200}


def responses(scale=1.0, dtype=torch.float32):
    return (noise(8, 4).double() * scale).to(dtype)


def unequal_units():
    return responses() * torch.tensor([1.0, 1e-25, 1e15, 1e-38])


def population(measure, x):
    return streamed(partial(sparsity.PopulationSparseness, measure), x).mean


STREAMS = [
    Case(
        f"LifetimeSparseness of responses × {what}",
        lambda _, scale=scale: lifetime(responses(*scale)),
        lambda _, scale=scale: lifetime_exact(responses(*scale)),
        tolerance=1e-9,
    )
    for what, scale in SCALES.items()
] + [
    Case(
        f"PopulationSparseness of {name}, responses × {what}",
        lambda _, args=(name, scale): population(args[0], responses(*args[1])),
        lambda _, args=(name, scale): np.mean(
            [exact(args[0], row) for row in responses(*args[1]).double().tolist()]
        ),
        tolerance=1e-6,
    )
    for name, (what, scale) in product(("gini", "hoyer", "excess_kurtosis"), SCALES.items())
]
STREAMS += [
    Case(
        "LifetimeSparseness of units of unlike scale",
        lambda _: lifetime(unequal_units()),
        lambda _: lifetime_exact(unequal_units()),
        tolerance=1e-9,
    ),
    *(
        Case(
            f"LifetimeSparseness of float64 × {what}",
            lambda _, scale=scale: lifetime(responses(scale, torch.float64)),
            says=("squares", "scale them"),
        )
        for what, scale in BEYOND.items()
    ),
    *(
        Case(
            f"{name} of {what}",
            lambda _, args=(make, value): streamed(args[0], _with(args[1])),
            says=(name, words),
        )
        for (name, make), (what, value, words) in product(
            {
                "LifetimeSparseness": sparsity.LifetimeSparseness,
                "PopulationSparseness": sparsity.PopulationSparseness,
            }.items(),
            (
                ("NaN", NAN, "NaN or infinite"),
                ("inf", INF, "NaN or infinite"),
                ("negative responses", -1.0, "zero or more"),
            ),
        )
    ),
    Case(
        "LifetimeSparseness of a single unit keeps its axis",
        lambda _: lifetime(responses()[:, :1]),
        lambda _: lifetime_exact(responses()[:, :1]),
    ),
    Case(
        "LifetimeSparseness of a single channel of maps",
        lambda _: list(
            streamed(partial(sparsity.LifetimeSparseness, "channel"), noise(8, 1, 2, 2)).mean.shape
        ),
        [1],
    ),
    Case(
        "CKA of a single layer keeps its axes",
        lambda _: list(streamed(MinibatchCKA, _Layers([noise(8, 3)]), (4, 4)).shape),
        [1, 1],
    ),
    Case(
        "half-peak fraction at the end of float32",
        lambda _: list(sparsity.half_peak_fraction(responses(3e38).clamp(max=3e38)).lifetime),
        lambda _: list(_half_peak(responses(3e38).clamp(max=3e38))),
    ),
    Case(
        "half-peak fraction of denormal responses",
        lambda _: list(sparsity.half_peak_fraction(torch.arange(4.0)[:, None] * 1.4e-45).lifetime),
        [0.5],
    ),
]


def _with(value):
    x = responses()
    x[4, 2] = value
    return x


def _half_peak(x):
    x = x.double().numpy()
    return (x > x.max(0) / 2).mean(0)


class _Layers(list):
    """Layers that are split along their images."""

    def split(self, sizes):
        return zip(*(layer.split(sizes) for layer in self), strict=True)


# --- similarity


def hsic(k, other):
    """The unbiased estimator of song2012feature, equation 5, in float64."""
    k, other = (x - np.diag(np.diag(x)) for x in (k, other))
    n = len(k)
    shared = k.sum() * other.sum() / (n - 1) / (n - 2) - 2 / (n - 2) * (k @ other).sum()
    return ((k * other).sum() + shared) / n / (n - 3)


def cka_of(a, b, sizes):
    """Σ n(n − 3) HSIC over minibatches, and the ratio."""
    a, b = (x.double().numpy() for x in (a, b))
    ab = aa = bb = start = 0.0
    for n in sizes:
        start = int(start)
        k, other = (x[start : start + n] @ x[start : start + n].T for x in (a, b))
        weight, start = n * (n - 3), start + n
        ab, aa, bb = (
            total + weight * hsic(*pair)
            for total, pair in ((ab, (k, other)), (aa, (k, k)), (bb, (other, other)))
        )
    return ab / math.sqrt(aa * bb)


def cka(a, b, sizes):
    metric = MinibatchCKA()
    for x, y in zip(a.split(sizes), b.split(sizes), strict=True):
        metric.update([x], [y])
    return metric.compute()[0, 0]


def pair(scale=1.0, dtype=torch.float32, n=40):
    a = noise(n, 12)
    b = a[:, :6] @ noise(6, 7, seed=1) + noise(n, 7, seed=2)
    return (a.double() * scale).to(dtype), b


SIZES = ([40], [20, 20], [16, 16, 8], [30, 6, 4], [36, 4])
SIMILARITY = [
    Case(
        f"CKA over minibatches of {sizes}",
        lambda _, sizes=sizes: cka(*pair(), sizes),
        lambda _, sizes=sizes: cka_of(*pair(), sizes),
    )
    for sizes in SIZES
] + [
    Case(
        f"CKA of responses × {what}",
        lambda _, scale=scale: cka(*pair(*scale), [20, 20]),
        lambda _: cka_of(*pair(), [20, 20]),
        tolerance=1e-4 if what == "1e-40" else 1e-6,  # denormal: a few digits
    )
    for what, scale in (SCALES | {"1e70 in float64": (1e70, torch.float64)}).items()
    if "1e100" not in what and "1e-100" not in what
]
SIMILARITY += [
    *(
        Case(
            f"CKA of float64 × {what}",
            lambda _, scale=scale: cka(*pair(scale, torch.float64), [20, 20]),
            says=("float64", "scale them"),
        )
        for what, scale in (BEYOND | {"1e100": 1e100, "1e-100": 1e-100}).items()
    ),
    *(
        Case(
            f"CKA of {value}",
            lambda _, value=value: cka(pair()[0].masked_fill(noise(40, 12) > 0.9, value),
                                       pair()[1], [20, 20]),
            says=("MinibatchCKA got NaN or infinite",),
        )
        for value in (NAN, INF)
    ),
    Case("CKA of a minibatch of three", lambda _: cka(*pair(), [37, 3]), says=("at least 4",)),
]  # fmt: skip


def layers(order="ab"):
    a, b = pair()
    found = {"a": a, "b": b}
    return {name: found[name] for name in order}


def twice(first, second, how):
    metric = MinibatchCKA()
    metric.update(layers(first))
    if how == "merge_state":
        other = MinibatchCKA()
        other.update(layers(second))
        metric.merge_state(other)
    elif how == "state":
        other = MinibatchCKA()
        other.update(layers(second))
        metric.merge_state(dict(other.metric_state))
    else:
        getattr(metric, how)(layers(second))
    return [metric.names[0], metric.compute()]


SIMILARITY += [
    Case(
        f"CKA, {how} of the layers in another order",
        lambda _, how=how: twice("ab", "ba", how),
        says=("MinibatchCKA", "layers"),
    )
    for how in ("update", "forward", "merge_state", "state")
] + [
    Case(
        f"CKA, {how} of the same layers",
        lambda _, how=how: twice("ab", "ab", how),
        lambda _: [["a", "b"], np.array([[1.0, c := cka_of(*pair(), [40])], [c, 1.0]])],
    )
    for how in ("update", "forward", "merge_state", "state")
]


def merged_into_empty():
    empty, full = MinibatchCKA(), MinibatchCKA()
    full.update(layers())
    empty.merge_state(full)
    return empty.names[0]


def after_a_refusal():
    """What was seen before a refused minibatch is still what was seen."""
    metric = MinibatchCKA()
    metric.update(layers())
    before = metric.compute()
    try:
        metric(layers("ba"))
    except ValueError:
        return [metric.names[0], metric.compute() - before]
    raise AssertionError("accepted")


def ratio(scale, dtype=torch.float32):
    skip, branch = noise(2, 5, 8), noise(2, 5, 8, seed=1)
    return skip_branch_ratio(*((x.double() * scale).to(dtype) for x in (skip, branch)))


def plain_ratio():
    skip, branch = (noise(2, 5, 8, seed=seed).double().numpy() for seed in (0, 1))
    return np.linalg.norm(skip, axis=-1) / np.linalg.norm(branch, axis=-1)


SIMILARITY += [
    Case("CKA merged into one that has seen nothing", lambda _: merged_into_empty(), ["a", "b"]),
    Case("CKA after a refused minibatch", lambda _: after_a_refusal(),
         [["a", "b"], np.zeros((2, 2))]),
    *(
        Case(
            f"skip / branch of values × {what}",
            lambda _, scale=scale: ratio(*scale),
            lambda _: plain_ratio(),
            tolerance=1e-4 if what == "1e-40" else 1e-6,
        )
        for what, scale in (SCALES | {k: (v, torch.float64) for k, v in BEYOND.items()}).items()
    ),
    Case("skip / branch of a silent branch",
         lambda _: skip_branch_ratio(torch.ones(1, 4), torch.zeros(1, 4)), np.array([INF])),
    *(Case(f"skip / branch of {value}",
           lambda _, value=value: skip_branch_ratio(torch.ones(1, 4), torch.full((1, 4), value)),
           says=("skip_branch_ratio", "NaN or infinite")) for value in (NAN, INF)),
]  # fmt: skip


# --- statistics


STATISTICS = {
    "mean_over": (lambda v: statistics.mean_over(v), 3),
    "contrast": (lambda v: statistics.contrast(v, "aabb", {"a": 1, "b": -1}), 4),
    "unequal": (lambda v: statistics.unequal(v, [1.0, 2.0, 4.0]), 3),
    "slope_per_doubling": (lambda v: statistics.slope_per_doubling([1, 2, 4, 8], v), 4),
    "share_over": (lambda v: statistics.share_over(v), 6),
    "bootstrap_means": (
        lambda v: statistics.percentiles(
            statistics.bootstrap_means({"v": np.array(v)}, 99)["v"], len(v)
        ),
        6,
    ),
}
VALUES = [0.2, 0.4, 0.3, 0.9, 0.8, 0.7]
STATISTIC_CASES = [
    Case(
        f"{name} of {value}",
        lambda _, args=(*STATISTICS[name], value): args[0]([args[2], *VALUES[1 : args[1]]]),
        says=("1 of ", "infinite", "leave them out"),
    )
    for name, value in product(STATISTICS, (INF, -INF))
]


def p_of(estimate):
    return [estimate.p, estimate.low, estimate.high]


@cache
def _ranks(values):
    found = statistics.rank_correlation([1, 2, 3, 4, 5, 6], [*values])
    return [found.estimate, found.p]


def largest_mean():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return p_of(statistics.mean_over([1.7e308, 1.7e308, 1.6e308]))


STATISTIC_CASES += [
    *(
        Case(
            f"rank_correlation of {value}",
            lambda _, values=(value, *VALUES[1:]): _ranks(values),
            lambda _, values=(stand_in, *VALUES[1:]): _ranks(values),
        )
        for value, stand_in in ((INF, 9.0), (-INF, -9.0))
    ),
    Case("mean_over of values whose sum leaves float64", lambda _: largest_mean(), [NAN] * 3),
    Case("percentiles of an infinite estimate",
         lambda _: p_of(statistics.percentiles(np.array([INF, INF, INF]), 3)), [NAN] * 3),
    *(Case(f"{kind} of NaN alone", lambda _, f=f: f([NAN] * 6), says=("model",))
      for kind, (f, _) in STATISTICS.items()
      if kind in ("mean_over", "unequal", "share_over")),
]  # fmt: skip


# --- logits that decide nothing


class Gives(nn.Module):
    """A model that gives these logits for each image, whatever it is."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))
        self.pretrained_cfg = dict(input_size=(3, 8, 8), mean=(0.0,) * 3, std=(1.0,) * 3)

    def forward(self, x):
        return self.logits + 0 * x.flatten(1).sum(1, keepdim=True)


def measured(model):
    measurement = Measurement(model.eval(), ["accuracy"])
    measurement.update(noise(4, 3, 8, 8), torch.zeros(4).long(), torch.arange(4))
    return [metric.compute().mean for metric in measurement.metrics.values()]


def behaved(model, measures, textures=None, everyday=False):
    classes = tuple(behaviour.CATEGORIES) if everyday else tuple("abc")
    here = Behaviour(model, measures, classes, 0, textures)
    here.update(noise(4, 3, 8, 8), torch.zeros(4).long(), torch.arange(4))
    return dict(here.counts)


IMAGES = noise(4, 3, 8, 8)
DECIDE = {
    "decisions": lambda model: behaviour.decisions(model, IMAGES),
    "decisions behind a Normalize": lambda model: behaviour.decisions(
        nn.Sequential(nn.Identity(), model), IMAGES
    ),
    "shift_consistency": lambda model: behaviour.shift_consistency(model, IMAGES, 1),
    "pgd": lambda model: behaviour.pgd(model, IMAGES, torch.zeros(4).long(), 0.1, 2),
    "accuracy in training": lambda model: trainer.accuracy(model, IMAGES, torch.zeros(4).long()),
    "measure": measured,
    "behave": lambda model: behaved(model, ["shift"]),
    "behave on conflicts": lambda model: behaved(model, ["conflict"], torch.ones(4).long()),
}
LOGITS = {"NaN": [NAN] * 3, "one NaN": [1.0, NAN, 0.0], "inf": [0.0, INF, 1.0]}
DECISIONS = [
    Case(
        f"{name} of logits with {what}",
        lambda _, args=(decide, logits): args[0](Gives(args[1])),
        says=("Gives gave NaN or infinite logits", "4 of 4 images"),
    )
    for (name, decide), (what, logits) in product(DECIDE.items(), LOGITS.items())
] + [
    Case(
        f"categories_of logits with {value}",
        lambda _, value=value: behaviour.categories_of(torch.zeros(2, 1000).fill_(value)),
        says=("NaN or infinite logits", "2 of 2"),
    )
    for value in (NAN, INF)
]
DECISIONS += [
    Case("measure of finite logits", lambda _: measured(Gives([2.0, 0.0, 0.0])),
         [1.0, math.log(1 + 2 * math.exp(-2))]),
    Case("pgd of a gradient that is NaN", lambda _: behaviour.pgd(
        nn.Sequential(_Root(), nn.Flatten(), nn.Linear(192, 3)), IMAGES, torch.zeros(4).long(),
        0.1, 2), says=("gradient", "NaN")),
]  # fmt: skip


class _Root(nn.Module):
    def forward(self, x):
        return (0 * x).abs().sqrt()


def a_zoo_model_of_nan():
    model = zoo.create("vit-d1-h2").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(NAN)
    return measured_by_zoo(model)


def measured_by_zoo(model):
    measurement = Measurement(model, ["accuracy"])
    measurement.update(noise(2, 3, 32, 32), torch.zeros(2).long(), torch.arange(2))
    return measurement


DECISIONS.append(
    Case("measure of a network of NaN", lambda _: a_zoo_model_of_nan(), says=("logits",))
)


# --- what else is measured


GRID, CENTRE = (2, 2), (0, 0)
OTHERS = {
    "mean_attention_distance": lambda x: attention_geometry.mean_attention_distance(
        x[:4, :4].expand(1, 1, 4, 4), GRID, 8, 0
    ),
    "rollout": lambda x: attention_geometry.rollout([x[:4, :4].expand(1, 1, 4, 4)]),
    "delta_log_amplitude": lambda x: frequency.delta_log_amplitude(x[:4, :4].expand(1, 1, 4, 4)),
    "radial_amplitude": lambda x: frequency.radial_amplitude(x[:4, :4].expand(1, 1, 4, 4)),
    "half_mass_radius": lambda x: receptive_field.half_mass_radius(x),
    "spike_triggered_average": lambda x: receptive_field.spike_triggered_average(
        lambda shown: x[:4, :2].expand(len(shown) // 4, 4, 2).flatten(0, 1), (2, 2), images=8
    ),
    "threshold": lambda x: decoding.threshold(x, 0.5, "top only"),
    "nearest_centroid_accuracy": lambda x: decoding.nearest_centroid_accuracy(
        x[:4], torch.tensor([0, 0, 1, 1]), x[4:8], torch.tensor([0, 0, 1, 1])
    ),
    "PlaceDecoder": lambda x: _places(x),
    "patch_rows": lambda x: sparsity.patch_rows(x, 1).rows,
    "mean_map": lambda x: sparsity.mean_map(x),
    "placement_overlap": lambda x: (
        sparsity.placement_overlap(x[None, 2:6], torch.Generator().manual_seed(0)).overlap
    ),
}
SCALE_FREE = (
    *("mean_attention_distance", "rollout", "delta_log_amplitude", "half_mass_radius"),
    *("nearest_centroid_accuracy", "patch_rows"),
)


def _places(x):
    decoder = decoding.PlaceDecoder()
    decoder.update(x.unflatten(0, (2, 4)))
    return decoder.decode(x.unflatten(0, (2, 4)))


OTHER_CASES = [
    Case(
        f"{name} of {what}",
        lambda _, args=(measure, value): args[0](_with(args[1])),
        says=("NaN or infinite",),
    )
    for (name, measure), (what, value) in product(OTHERS.items(), (("NaN", NAN), ("inf", INF)))
    if name not in ("mean_attention_distance", "rollout", "delta_log_amplitude",
                    "radial_amplitude", "spike_triggered_average")
] + [
    Case(
        f"{name} of {what}",
        lambda _, args=(measure, value): args[0](responses().index_fill(
            0, torch.tensor(1), args[1])),
        says=("NaN or infinite",),
    )
    for (name, measure), (what, value) in product(OTHERS.items(), (("NaN", NAN), ("inf", INF)))
    if name in ("mean_attention_distance", "rollout", "delta_log_amplitude",
                "radial_amplitude", "spike_triggered_average")
] + [
    Case(
        f"{name} of values × {what}",
        lambda _, args=(OTHERS[name], scale): args[0](responses(*args[1])),
        lambda _, measure=OTHERS[name]: measure(responses(1.0, torch.float64)),
        tolerance=1e-4 if what == "1e-40" else 1e-6,
    )
    for name, (what, scale) in product(
        SCALE_FREE, (SCALES | {k: (v, torch.float64) for k, v in BEYOND.items()}).items()
    )
]  # fmt: skip
OTHER_CASES += [
    *(
        Case(
            f"PlaceDecoder of float64 × {what}",
            lambda _, scale=scale: _places(responses(scale, torch.float64)),
            says=("PlaceDecoder", "squares"),
        )
        for what, scale in BEYOND.items()
    ),
    Case("radius of a single pixel, relative",
         lambda _: receptive_field.relative_radius(torch.ones(1, 1)), NAN),
    Case("distance on a grid without patches",
         lambda _: attention_geometry.uniform_attention_distance((0, 4), 8), says=("0 × 4",)),
    Case("ranks of NaN and of infinity",
         lambda _: agreement.standard_ranks(torch.tensor([[1.0, INF, 2.0], [1.0, NAN, 2.0]])),
         lambda _: np.array([[-(0.5**0.5), 0.5**0.5, 0.0], [NAN] * 3])),
    *(Case(f"a share of {share}", lambda _, share=share: decoding.threshold(
        responses(), share, "top only"), says=("share",)) for share in (NAN, -0.1, 1.1)),
]  # fmt: skip

CASES = [*VECTORS, *STREAMS, *SIMILARITY, *STATISTIC_CASES, *DECISIONS, *OTHER_CASES]
