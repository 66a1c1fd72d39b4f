"""The ablation and the figures of Hu, Zhang and Zhao, against the same computed one by one."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.conditions import Lively

from experiments.engine.job import Job
from experiments.engine.metrics import Metrics
from experiments.engine.ranks import Ranks
from experiments.tasks.class_rows import ClassRows, _tokens
from experiments.tasks.hu2023 import SHARES, Hu2023
from utils.measures import sparsity
from utils.probes import AblationSpec, Ablator, ActivationRecorder, AttentionProbe
from utils.stimuli import datasets

MODEL, N, DRAWS = "vit-d2-h2", 12, 3
LAST = "blocks.1.attn"


def table(task, file):
    data = datasets.load("objects/validation").subset(range(N), "few")
    job = Job([Lively(MODEL)], task, data.prepared_for, N, 5, file, {}, Ranks())
    assert not job.run().failed
    return pd.read_csv(file)


@pytest.fixture(scope="module")
def ablated(tmp_path_factory):
    return table(Hu2023(DRAWS, 0), tmp_path_factory.mktemp("hu") / "a.csv")


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    return table(ClassRows(0), tmp_path_factory.mktemp("hu") / "b.csv")


@pytest.fixture(scope="module")
def read():
    """The images, their labels, the rows of the class token, and the model."""
    model = Lively(MODEL).load()
    images, labels, _ = datasets.load("objects/validation").batch(0, N)
    with torch.no_grad(), AttentionProbe(model, rows="class") as probe:
        model(images)
    return model, images, labels, {k: v[:, :, 0, 1:].double() for k, v in probe.maps.items()}


def value(found, **where):
    for column, wanted in where.items():
        found = found[found[column] == wanted]
    (number,) = found["value"]
    return number


@pytest.mark.parametrize("k", [max(1, round(share * 64)) for share in SHARES])
def test_the_strongest_by_the_averaged_row_are_removed_in_all_heads(ablated, read, k):
    model, images, labels, rows = read
    strongest = rows[LAST].mean(1).argsort(-1, descending=True)[:, :k]
    keys = 1 + strongest[:, None].expand(-1, 2, -1)
    both = [AblationSpec(layer, keys=keys) for layer in rows]
    intact, (last, two) = Ablator(model).run_with_intact(images, [both[-1:], both])
    for scope, logits in (("last", last), ("last two", two)):
        p, q = (x.double().log_softmax(-1) for x in (intact, logits))
        kl = (p.exp() * (p - q)).sum(-1).mean().item()
        where = dict(scope=scope, order="head-averaged", k=k)
        assert value(ablated, quantity="KL", **where) == pytest.approx(kl, rel=1e-4, abs=1e-6)
        right = (logits.argmax(-1) == labels).double().mean().item()
        assert value(ablated, quantity="accuracy", **where) == pytest.approx(right)


def test_each_head_has_its_own_order(ablated, read):
    model, images, _, rows = read
    keys = 1 + rows[LAST].argsort(-1, descending=True)[..., :6]
    intact, logits = Ablator(model).run_with_intact(images, [AblationSpec(LAST, keys=keys)])
    p, q = (x.double().log_softmax(-1) for x in (intact, logits[0]))
    kl = (p.exp() * (p - q)).sum(-1).mean().item()
    found = value(ablated, quantity="KL", scope="last", order="own", k=6)
    assert found == pytest.approx(kl, rel=1e-4, abs=1e-6)


def test_what_is_beyond_random_is_the_paired_difference_over_draws(ablated):
    where = dict(scope="last", k=13)
    for quantity, sign in (("KL", 1), ("accuracy", -100), ("margin", -1)):
        top, random = (
            value(ablated, quantity=quantity, order=order, **where)
            for order in ("head-averaged", "random")
        )
        found = value(
            ablated, quantity=f"{quantity}, beyond random", order="head-averaged", **where
        )
        assert found == pytest.approx(sign * (top - random), abs=1e-6)
    draws = ablated[(ablated["quantity"] == "accuracy of a draw") & (ablated["k"] == 13)]
    draws = draws[draws["scope"] == "last"]["value"]
    assert len(draws) == DRAWS
    assert draws.mean() == pytest.approx(
        value(ablated, quantity="accuracy", order="random", **where)
    )


def test_pooled_correlations_are_those_of_the_flattened_rows(figures, read):
    rows = read[-1]
    layers = np.corrcoef([x.mean(1).flatten().numpy() for x in rows.values()])
    heads = np.corrcoef(rows[LAST].transpose(0, 1).flatten(1).numpy())
    pooled = figures[figures["quantity"] == "pooled_correlation"]
    across = value(pooled, unit="layers", layer="blocks.0.attn", other=LAST)
    assert across == pytest.approx(layers[0, 1], abs=1e-6)
    assert value(pooled, unit="heads", head=0, place=1) == pytest.approx(heads[0, 1], abs=1e-6)


def test_shares_of_weights_and_places_are_of_all(figures, read):
    logs = figures[(figures["quantity"] == "log_share") & (figures["layer"] == LAST)]
    single = logs[logs["unit"] == "per head"]
    assert single["value"].sum() == pytest.approx(1)
    weak = -read[-1][LAST].log10().flatten()
    share = ((weak >= 1.8) & (weak < 1.9)).double().mean().item()
    bins = single[single["place"].round(1) == 1.8]["value"]
    assert bins.sum() == pytest.approx(share, abs=1e-6)
    places = figures[figures["quantity"] == "strongest_share"].groupby(["unit", "head"])["value"]
    assert np.allclose(places.sum(), 1)


def test_tokens_of_large_norm_are_left_out_of_the_rows_that_read_them(figures, read):
    model, images, _, rows = read
    with torch.no_grad(), ActivationRecorder(model, "blocks.0") as record:
        model(images)
    norms = record.outputs["blocks.0"][:, 1:].norm(dim=-1)
    high = norms > 2 * norms.median(-1, keepdim=True).values
    kept = [sparsity.gini(row[:, ~out]).mean() for row, out in zip(rows[LAST], high, strict=True)]
    found = figures[(figures["quantity"] == "gini_without_high") & (figures["layer"] == LAST)]
    assert found["value"].mean() == pytest.approx(float(sum(kept)) / N, abs=1e-6)
    assert value(figures, quantity="high_tokens", layer="blocks.0") == pytest.approx(
        high.sum(-1).double().mean().item()
    )


def test_tokens_are_paired_with_the_attention_of_the_next_block_by_its_name():
    rows = torch.rand(2, 3, 16, dtype=torch.float64)
    norms = {name: torch.rand(2, 16, dtype=torch.float64) + 1 for name in ("a.0", "a.1", "b.0")}
    here = Metrics()
    _tokens(here, {"b.0.attn": rows}, norms)
    read = {key[1] for key in here if key[0] == "high_mass"}
    assert read == {"b.0.attn"}
    high = norms["a.1"] > 2 * norms["a.1"].median(-1, keepdim=True).values
    shares = rows / rows.sum(-1, keepdim=True)
    expected = (shares * high[:, None]).sum(-1).mean(0)
    torch.testing.assert_close(here["high_mass", "b.0.attn"].compute().mean, expected)
