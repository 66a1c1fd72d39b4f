"""Evidence on agreeing and overlapping heads: made-up tables and regressions done by hand."""

import math

import numpy as np
import pytest
from helpers.tables import by_criterion, found, judged, row, write
from scipy import stats

from experiments.evidence import claims, trends
from experiments.training.groups import GROUPS
from utils.models.architectures import Spec

both = pytest.mark.parametrize("edition", ["first", "second"])
AGREEMENT = (
    ("heads", "main", "head_agreement", "centred"),
    ("layers", "main", "neighbour_agreement", "centred"),
    ("distance", "main", "neighbour_advantage", "centred"),
    ("raw", "heads", "head_agreement", "raw"),
    ("raw", "layers", "neighbour_agreement", "raw"),
)
MODELS = ("vit-d6-h2", "vit-d6-h8-s1", "vit-d12-h4", "vit-d2-h4-s2")


def agreement(centred, raw):
    """One number for each network of the sweeps, and others that the claim is not about."""
    shift = dict(zip(MODELS, (-0.03, 0.0, 0.01, 0.04), strict=True))
    for *_, quantity, kind in AGREEMENT:
        level = raw if kind == "raw" else centred
        for name in MODELS:
            yield row(name, quantity, level + shift[name], unit=kind)
            yield row(name, quantity, -1.0, unit=kind, layer="blocks.0")  # of a single layer
            yield row(name, quantity, -1.0, "random", unit=kind)
        yield row("vit-d6-h4-relu", quantity, -1.0, unit=kind)
        yield row("resnet-d20", quantity, -1.0, unit=kind)


@both
def test_agreement_is_the_mean_over_the_networks_of_the_sweeps(edition, tmp_path):
    write(tmp_path, "representation", list(agreement(0.5, 0.7)))
    evidence = by_criterion(found("hu2", tmp_path, edition))
    assert list(evidence.index) == [(criterion, variant) for criterion, variant, *_ in AGREEMENT]
    for criterion, variant, _, kind in AGREEMENT:
        level = {"raw": 0.7, "centred": 0.5}[kind]
        test = stats.ttest_1samp([level - 0.03, level, level + 0.01, level + 0.04], 0)
        said = evidence.loc[(criterion, variant)]
        assert said["estimate"] == pytest.approx(level + 0.005)
        assert tuple(said[["low", "high"]]) == pytest.approx(test.confidence_interval())
        assert said["p"] == pytest.approx(test.pvalue)
        assert said["models"] == len(MODELS)


@both
@pytest.mark.parametrize(
    ("centred", "raw", "verdict"),
    [
        (0.5, 0.7, (claims.SUPPORTED, "")),
        (0.1, 0.7, (claims.MIXED, "only the mean map is shared")),
        (0.1, 0.1, (claims.NOT_SUPPORTED, "heads, layers")),
    ],
)
def test_heads_that_share_their_mean_map_alone_agree_in_part(
    edition, centred, raw, verdict, tmp_path
):
    write(tmp_path, "representation", list(agreement(centred, raw)))
    assert judged(found("hu2", tmp_path, edition), "hu2", edition) == verdict


GRID = [Spec.parse(name) for name in GROUPS["decoupled"].names]


def effects(seed=0):
    """Design → overlap, N and interactions that follow heads and head dimension, with noise."""
    rng = np.random.default_rng(seed)
    for spec in GRID:
        heads, size = math.log2(spec.heads), math.log2(spec.head_dim)
        overlap = 0.1 + 0.08 * heads + 0.03 * size + 0.02 * rng.standard_normal()
        n = 0.8 - 0.5 * overlap - 0.02 * heads + 0.01 * size + 0.02 * rng.standard_normal()
        overlap = math.nan if spec.heads == 1 else overlap
        yield spec.short, heads, size, overlap, n, 0.2 + 0.01 * heads, -0.1 * size


def write_effects(folder, known, without_overlap=()):
    """Both tables; a network with one head, and those named, have no overlap but other numbers."""
    sparseness, ablation = [], []
    for name, *_, overlap, n, removal, keeping in known:
        place = dict(unit="class", layer="blocks.0")
        sparseness.append(row(name, "gini", 0.7, **place))
        if not math.isnan(overlap) and name not in without_overlap:
            # The mean over two layers, which no head owns.
            sparseness.append(row(name, "overlap", overlap - 0.05, **place))
            sparseness.append(row(name, "overlap", overlap + 0.05, unit="class", layer="blocks.1"))
        for by, shift in (("zero", 0.0), ("renormalise", 0.3)):
            about = dict(unit="attention", scope="all", replaced_by=by)
            for quantity, value in (
                ("necessity N", n),
                ("necessity N, probability", n),
                ("I_rem", removal),
                ("I_keep", keeping),
            ):
                ablation.append(row(name, quantity, value + shift, **about))
                ablation.append(row(name, quantity, 9.0, **about | {"scope": "last"}))
    write(folder, "sparseness", sparseness)
    write(folder, "ablation-heads-all", ablation)


def least_squares(y, *columns):
    """The slope of the first column, its interval and p, by the normal equations."""
    x = np.column_stack([*columns, np.ones(len(y))])
    inverse = np.linalg.inv(x.T @ x)
    slopes = inverse @ x.T @ y
    freedom = len(y) - x.shape[1]
    error = math.sqrt(((y - x @ slopes) ** 2).sum() / freedom * inverse[0, 0])
    half = stats.t.ppf(0.975, freedom) * error
    p = 2 * stats.t.sf(abs(slopes[0]) / error, freedom)
    return slopes[0], slopes[0] - half, slopes[0] + half, p


def shrinkage(n, heads, size, overlap):
    ones = np.ones(len(n))
    plain, with_overlap = (
        np.linalg.lstsq(np.column_stack([heads, *columns, size, ones]), n, rcond=None)[0][0]
        for columns in ([], [overlap])
    )
    return 1 - with_overlap / plain


def test_overlap_and_what_it_takes_of_the_slope_are_those_of_two_regressions(tmp_path):
    known = list(effects())
    write_effects(tmp_path, known)
    evidence = by_criterion(found("hu7", tmp_path))
    heads, size, overlap, n, removal, keeping = np.array([each[1:] for each in known]).T
    has = ~np.isnan(overlap)
    columns = ["estimate", "low", "high", "p"]
    said = evidence.loc[("overlap", "main")]
    assert tuple(said[columns]) == pytest.approx(
        least_squares(overlap[has], heads[has], size[has]), abs=1e-7
    )
    assert said["models"] == has.sum() == 12

    own = n[has], heads[has], size[has], overlap[has]
    said = evidence.loc[("mediation", "main")]
    assert said["estimate"] == pytest.approx(shrinkage(*own) - 0.5, abs=1e-6)
    assert said["models"] == 12
    rng = np.random.default_rng(1)  # other draws than those of the book
    drawn = [rng.integers(12, size=12) for _ in range(2000)]
    shares = [shrinkage(*(column[rows] for column in own)) for rows in drawn]
    ends = np.quantile(shares, (0.025, 0.975)) - 0.5
    assert tuple(said[["low", "high"]]) == pytest.approx(ends, abs=0.15 * np.ptp(ends))

    for criterion, values in (("removal", removal), ("keeping", keeping)):  # of all sixteen
        test = stats.ttest_1samp(values, 0)
        expected = (values.mean(), *test.confidence_interval(), test.pvalue)
        assert tuple(evidence.loc[(criterion, "main"), columns]) == pytest.approx(expected)
        assert evidence.loc[(criterion, "main"), "models"] == 16


def test_of_fewer_than_six_networks_with_an_overlap_no_share_is_taken(tmp_path):
    known = list(effects())
    having = [name for name, _, _, overlap, *_ in known if not math.isnan(overlap)]
    for count in (6, 5):
        write_effects(tmp_path, known, having[count:])
        criteria = found("hu7", tmp_path)["criterion"].tolist()
        assert ("mediation" in criteria) == (count == 6)
        assert {"overlap", "removal", "keeping"} <= set(criteria)


def test_overlap_is_not_judged_while_a_design_of_the_grid_is_lacking(tmp_path):
    write_effects(tmp_path, list(effects())[1:])
    assert found("hu7", tmp_path).empty


def test_in_the_second_edition_all_parts_are_of_the_networks_that_have_an_overlap(tmp_path):
    known = list(effects())
    write_effects(tmp_path, known)
    evidence = by_criterion(found("hu7", tmp_path, "second"))
    own = np.array([each[1:] for each in known if not math.isnan(each[3])]).T
    heads, size, overlap, n, removal, keeping = own
    # Ablated by renormalising: each number there is greater by .3.
    assert tuple(evidence.loc[("overlap", "main"), ["estimate", "low", "high"]]) == pytest.approx(
        least_squares(overlap, heads, size)[:3], abs=1e-7
    )
    assert evidence.loc[("association", "main"), "estimate"] == pytest.approx(
        stats.spearmanr(overlap, n).statistic
    )
    for criterion, values in (("removal", removal), ("keeping", keeping)):
        assert evidence.loc[(criterion, "main"), "estimate"] == pytest.approx(values.mean() + 0.3)
    assert set(evidence["models"]) == {len(n)}


def test_only_what_is_asked_is_fitted_and_it_is_fitted_as_before(tmp_path):
    write_effects(tmp_path, list(effects()))
    values = trends.values("objects", out=tmp_path)
    everything = trends.slopes(values, "objects", trends.SWEEPS)
    asked = trends.slopes(values, "objects", trends.SWEEPS, measure=("N", "I_rem"), scope=("all",))
    wanted = everything["measure"].isin(("N", "I_rem")) & (everything["scope"] == "all")
    assert 0 < len(asked) < len(everything)
    expected = everything[wanted].reset_index(drop=True)
    assert asked.equals(expected)
