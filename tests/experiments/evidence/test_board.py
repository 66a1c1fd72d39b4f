"""The board: every claim on it once, with the verdict that its rule gives, or what is lacking."""

import json
import math
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from experiments.catalogue import EXPERIMENTS
from experiments.evidence import board, claim_cards, claims, progress
from experiments.evidence.board import Board
from experiments.evidence.recorded import Recorded
from experiments.evidence.table import CLAIMS, evidence
from experiments.tasks.standalone import STANDALONE
from experiments.training.groups import GROUPS

CHAPTERS = Path(__file__).resolve().parents[3] / "chapters"


@pytest.fixture
def shown(tmp_path):
    """The board of a folder without tables; they are read once one of them is asked for."""
    return Board(tmp_path)


def write(folder, experiment, rows, conditions=()):
    file = folder / "objects" / f"{experiment}.csv"
    file.parent.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_csv(file, index=False)
    record = {"conditions": {condition: {} for condition in conditions}}
    file.with_suffix(".json").write_text(json.dumps(record), encoding="utf-8")


def sparse_attention(folder):
    """Two ViTs whose attention is sparse in all four layers; half of what a claim needs of each."""
    shared = {"quantity": "gini", "head": 0, "unit": "class", "se": 0.001}
    rows = [
        {"model": model, "weights": weights, "layer": f"blocks.{i}", "value": value, **shared}
        for model in ("vit-d6-h4", "vit-d6-h8")
        for weights, value in (("trained", 0.8), ("random", 0.2))
        for i in range(4)
    ]
    conditions = ["vit-d6-h4 trained", "vit-d6-h4 random weights", "vit-d6-h8 trained"]
    write(folder, "sparseness", rows, conditions)


def strong_units(folder):
    """Necessity of three ViTs: .4, .5, .6 against random units, half of that at equal mass."""
    shared = {"weights": "trained", "unit": "attention", "scope": "all"}
    rows = [
        {"model": f"vit-d6-h{h}", "replaced_by": by, "quantity": quantity, "value": value, **shared}
        for h, number in ((1, 0.4), (2, 0.5), (4, 0.6))
        for by in ("zero", "renormalise")
        for quantity, value in (("necessity N", number), ("place index", number / 2))
    ]
    write(folder, "ablation-heads-all", rows)


def by_id(shown) -> dict[str, BeautifulSoup]:
    """The cards by the claims that they are anchors of."""
    html = BeautifulSoup(shown._repr_html_(), "html.parser")
    return {card["id"]: card for card in html.select(".claim-card")}


def test_every_claim_has_one_card_with_a_verdict_for_each_of_its_rungs(shown):
    found = by_id(shown.cards())
    assert list(found) == list(claims.BY_ID)
    for claim in claims.CLAIMS:
        card = found[claim.id]
        assert card.h3.get_text() == f"{claim.id}: {claim.statement}"
        for head, rung in zip(card.select("h4"), claim.rungs, strict=True):
            assert f"{board.RUNG_NAMES[claims.RUNGS[rung]]}: not tested here" in head.get_text()
        assert len(card.select("ul > li")) == len(claim.criteria)


def test_a_card_says_and_draws_what_was_measured(shown):
    strong_units(shown.out)
    row = shown.recorded().query("claim == 'hu3' and variant == 'zero'").iloc[0]
    card = by_id(shown.cards("hu3"))["hu3"]
    (line,) = (each for each in card.select("tr") if each.th and each.th.get_text() == "zero")
    assert f"+0.500 [{row.low:+.3f}, {row.high:+.3f}], 3 models" in line.get_text()
    place = float(line.circle["cx"])
    start, end = map(float, re.findall(r"M([\d.]+) [\d.]+H([\d.]+)", str(line.svg))[0])
    share = (row.estimate - row.low) / (row.high - row.low)
    assert (place - start) / (end - start) == pytest.approx(share, abs=0.02)


def test_what_has_no_upper_end_is_drawn_to_the_edge():
    rows = pd.DataFrame([{"estimate": 0.1, "low": -math.inf, "high": math.inf}])
    (drawn,) = claim_cards.intervals(rows, claims.Effect(+1, 0.03))
    assert f"M0.0 {claim_cards.ROW / 2}H{claim_cards.WIDTH:.1f}" in drawn


def test_rules_are_said_in_words():
    rules = {criterion.rule for claim in claims.CLAIMS for criterion in claim.criteria}
    said = {rule: claim_cards.counts(rule) for rule in rules}
    assert len(set(said.values())) == len(rules)
    assert (
        said[claims.Effect(+1, 0.03)] == "the interval lies above 0, and the effect is 0.03 or more"
    )


def test_every_source_of_a_claim_has_a_name():
    assert {key for claim in claims.CLAIMS for key in claim.sources} == set(claim_cards.SOURCES)


def test_what_is_not_tested_has_a_reason_or_says_what_is_lacking(tmp_path):
    lacking = {
        (claim.id, rung): progress.lacking(claim.id, rung, tmp_path)
        for claim in claims.CLAIMS
        for rung in (claims.RUNGS[letter] for letter in claim.rungs)
    }
    assert all(lacking.values())
    assert lacking["hu9", "objects"] == claims.BY_ID["hu9"].reason
    assert lacking["zh", "cifar10"] == "none of its models is trained here"
    assert lacking["hu6", "cifar10"].endswith("group decoupled is not declared on this rung")
    assert "group" not in lacking["hu6", "objects"] + lacking["hu1", "cifar10"]


def test_a_verdict_shown_is_the_one_that_the_rules_give(shown):
    sparse_attention(shown.out)
    strong_units(shown.out)
    found = evidence(shown.out)[list(claims.EVIDENCE)]
    expected = {(v.claim, v.rung): v.verdict for v in claims.verdicts(found)}
    assert expected["hu1", "objects"] == claims.SUPPORTED
    found = shown.verdicts().set_index(["claim", "rung"])["verdict"].to_dict()
    assert found == expected
    assert all(shown.verdict_of(*place) == verdict for place, verdict in expected.items())
    for claim in claims.CLAIMS:
        text = shown.box(claim.id).data
        for rung in claim.rungs:
            name = board.RUNG_NAMES[claims.RUNGS[rung]]
            verdict = expected[claim.id, claims.RUNGS[rung]]
            assert re.search(rf"\*\*{verdict}\*\*.* on .*{name}", text)


def test_an_effect_is_shown_with_its_interval_and_its_models(shown):
    strong_units(shown.out)
    row = shown.recorded().query("claim == 'hu3' and variant == 'zero'").iloc[0]
    interval = f"[{row.low:+.3f}, {row.high:+.3f}]"
    assert f"(zero): **+0.500** {interval}, 3 models" in shown.box("hu3").data
    assert interval in shown.effects("hu3")["interval"].tolist()


def test_a_share_is_shown_without_an_interval(shown):
    sparse_attention(shown.out)
    assert "**1.000** (a share, no interval), 2 models" in shown.box("hu1").data


def test_of_a_contradiction_both_sides_are_shown_and_nothing_else(shown):
    rows = [
        {"model": f"{model}-s{seed}".removesuffix("-s0"), "weights": "trained"}
        | {"quantity": quantity, "value": value + 0.01 * seed}
        for model, bias, decided in (("vit-d6-h4", 0.6, 0.9), ("resnet-d20", 0.3, 0.2))
        for seed in range(3)
        for quantity, value in (("shape_bias", bias), ("decided", decided))
    ]
    write(shown.out, "cue-conflict", rows)
    said = shown.box("tu2").data
    assert "because of: decided" in said
    # Not the difference of the biases, which passes.
    assert "share of decided trials (ViT): **+0.910** [+0.885, +0.935], 3 models; but" in said
    assert "; but (CNN): **+0.210**" in said
    assert said.count("**+") == 2


def test_a_criterion_that_refers_to_the_one_before_is_shown_after_it(shown):
    rows = [
        {"model": name, "weights": "trained", "quantity": "skip_fall", "unit": unit, "value": value}
        for name, skip in (("vit-d6-h4", 0.4), ("vit-d6-h4-s1", 0.41), ("resnet-d20", 0.5))
        for unit, value in (("block", 0.1), ("skip", skip))
    ]
    write(shown.out, "representation", rows)
    assert "whole block removed; the same, ViT − ResNet: **−0.095**" in shown.box("ra3").data


@pytest.mark.parametrize(
    ("quantity", "said"),
    [
        ("slope of the lengths, width / 2", "slope of the lengths, width / 2"),
        ("the same of the lengths", "slope of the widths; the same of the lengths"),
    ],
)
def test_a_fallback_is_shown_in_its_own_words(quantity, said, monkeypatch):
    rule = claims.Effect(+1, 0.1)
    criteria = tuple(
        claims.Criterion(name, words, rule)
        for name, words in (("widths", "slope of the widths"), ("heights", "slope of the heights"))
    )
    fallback = claims.Criterion("lengths", quantity, rule)
    claim = claims.Claim("made-up", "All grows.", (), criteria, fallback=fallback)
    monkeypatch.setitem(claims.BY_ID, claim.id, claim)
    rows = pd.DataFrame(
        [{"claim": claim.id, "criterion": c.name} for c in (*criteria, fallback)]
    ).itertuples()
    assert [board._quantity(row) for row in rows] == [*(c.quantity for c in criteria), said]


def test_seeds_that_agree_to_the_last_digit_have_an_interval_all_the_same(shown):
    rows = [
        {"model": f"{model}{seed}", "weights": "trained", "quantity": quantity, "value": value}
        for model, bias in (("vit-d6-h4", 0.5), ("resnet-d20", 0.25))
        for seed in ("", "-s1")
        for quantity, value in (("shape_bias", bias), ("decided", 0.9))
    ]
    write(shown.out, "cue-conflict", rows)
    assert "**+0.250** [+0.250, +0.250], 4 models" in shown.box("tu2").data


def test_a_model_counts_once_all_its_conditions_are_recorded(shown):
    sparse_attention(shown.out)
    declared = {m for name in ("heads", "depth") for m in GROUPS[name].members()}
    assert progress.lacking("hu1", "objects", shown.out) == f"1 of {len(declared)} models recorded"


def test_a_claim_lacks_nothing_once_every_condition_is_recorded(tmp_path, monkeypatch):
    declared = EXPERIMENTS["sparseness"]
    models = [m for m in declared.models("objects") if m in GROUPS["cnn-depth"].members()]
    conditions = [f"{m} {i}" for m in models for i in range(declared.count(m))]
    monkeypatch.setattr(progress.zoo, "manifest", lambda: dict.fromkeys(models))
    assert progress.commands("hu8", out=tmp_path / "before") == "`replicate sparseness`"
    (tmp_path / "after").mkdir()
    write(tmp_path / "after", "sparseness", [], conditions)
    assert progress.commands("hu8", out=tmp_path / "after") == ""


def test_commands_train_first_and_end_at_equal_loss(tmp_path, monkeypatch):
    monkeypatch.setattr(progress.zoo, "manifest", dict)
    assert progress.commands("hu5", "cifar10", tmp_path) == (
        "`train --group cifar10`, then "
        "`replicate ablation-cnn ablation-cnn-all --rung cifar10`, then "
        "`replicate ablation-cnn ablation-cnn-all --rung cifar10 --loss NATS`"
    )
    assert progress.commands("ra1", "imagenet", tmp_path) == (
        "`replicate similarity --rung imagenet --data photographs/`"
    )
    assert progress.commands("tu1", "imagenet", tmp_path) == (
        "`replicate cue-conflict --rung imagenet`"
    )
    assert progress.commands("hu9", out=tmp_path) == ""


def test_what_a_claim_is_judged_from_is_declared():
    assert set(progress.SECTIONS) <= set(claims.BY_ID)
    for claim in CLAIMS.values():
        assert claim.experiments
        assert set(claim.experiments) <= {*EXPERIMENTS, *STANDALONE}
        assert set(claim.groups) <= set(GROUPS)


@pytest.mark.parametrize("claim", [name for name in CLAIMS if name not in ("hu3", "hu4", "hu5")])
def test_the_tables_that_the_evidence_reads_are_those_that_the_board_names(claim, tmp_path):
    asked = []

    class Watched(Recorded):
        def table(self, experiment):
            asked.append(experiment)
            return super().table(experiment)

    list(CLAIMS[claim](Watched("objects", tmp_path)))
    assert set(asked) <= set(CLAIMS[claim].experiments)


@pytest.mark.parametrize("claim", progress.SECTIONS)
def test_a_claim_links_to_a_section_that_is_there(claim):
    chapter, heading = progress.section(claim)
    cells = nbformat.read(CHAPTERS / f"{chapter}.ipynb", as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert re.search(rf"^##+ {re.escape(heading)}$", text, re.MULTILINE)
    assert f'href="{chapter}.ipynb#{heading.replace(" ", "-")}"' in claim_cards.shown_in(claim)


def test_the_marks_differ_without_their_colours():
    assert set(board.MARKS) == set(claims.VERDICTS)
    assert len({mark for mark, *_ in board.MARKS.values()}) == len(claims.VERDICTS)


def test_the_figure_has_a_mark_for_each_verdict(shown):
    drawn = [text.get_text() for text in shown.figure("hu1", "co").axes[0].texts]
    assert drawn == [board.MARKS[claims.NOT_TESTED][0]] * 4  # three rungs, and one


def test_the_conclusion_names_every_claim_of_a_rung_once(shown):
    sparse_attention(shown.out)
    text = shown.conclusion().data
    names = [c.id for c in claims.CLAIMS if "O" in c.rungs]
    assert sorted(re.findall(r"\(<a href=\S+>(\w+)</a>\)(?=[;.])", text)) == sorted(names)
    assert f"✓ **supported** (1): Attention is sparse ({claim_cards.named('hu1')})." in text


def test_the_small_board_says_its_marks_in_words(shown):
    sparse_attention(shown.out)
    said = shown.small()
    assert 'aria-label="supported on objects"' in said
    own = [claim for claim in claims.CLAIMS if claim.sources == claims.HU]
    assert all(said.count(claim.statement) == 1 for claim in own)
    assert said.count("<tr>") == len(own)


def test_the_landing_page_shows_what_chapter_6_keeps_for_it():
    (key,) = re.findall(
        r"```\{glue\} (\S+)\n:doc: 6_claims.ipynb",
        (CHAPTERS / "index.md").read_text(encoding="utf-8"),
    )
    assert f'"{key}"' in "".join(
        c.source for c in nbformat.read(CHAPTERS / "6_claims.ipynb", 4).cells
    )


def test_an_unknown_claim_is_refused(shown):
    with pytest.raises(KeyError, match="no claim 'hu11' on the rung 'objects'"):
        shown.verdict_of("hu11")
    with pytest.raises(KeyError, match="no claim 'hu11'"):
        shown.box("hu11")


def test_every_claim_that_can_be_tested_has_evidence():
    testable = {claim.id for claim in claims.CLAIMS if not claim.reason}
    lacking = testable - set(CLAIMS)
    assert not lacking, f"List an evidence function for {lacking} in CLAIMS of its module."
