"""The board: every claim on it once, with the verdict that its rule gives, or what is lacking."""

import json
import math
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from helpers.tables import accuracy, behaviour, jitter, layer, profile, seeds
from helpers.tables import write as write_table

from experiments.catalogue import EXPERIMENTS
from experiments.engine.results import file_of, record_file
from experiments.evidence import board, claim_cards, claims, power, progress, rules
from experiments.evidence.board import Board
from experiments.evidence.recorded import Recorded
from experiments.evidence.table import CLAIMS, evidence
from experiments.tasks.standalone import STANDALONE
from experiments.training.groups import BUDGETS, GROUPS
from utils.models.architectures import Spec

CHAPTERS = Path(__file__).resolve().parents[3] / "chapters"
VIT, CNN = "vit-d6-h4", "resnet-d20"


@pytest.fixture
def shown(tmp_path):
    """The board of a folder without tables; they are read once one of them is asked for."""
    return Board(tmp_path)


def write(folder, experiment, rows, conditions=(), rung="objects"):
    write_table(folder, experiment, rows, rung)
    record = {"conditions": {condition: {} for condition in conditions}}
    file = record_file(file_of(experiment, rung, out=folder))
    file.write_text(json.dumps(record), encoding="utf-8")


def sparse_attention(folder, beyond=0.1):
    """Five ViTs whose attention is sparse in all four layers; of two of them conditions are
    recorded, and half of what a claim needs of one."""
    rows = []
    for model in GROUPS["heads"].names:
        for place in range(4):
            rows.append(layer(model, "gini", 0.8, place=place))
            rows.append(layer(model, "gini", 0.2, "random", place))
            rows.append(layer(model, "gini_beyond_gaussian", beyond, place=place))
    conditions = ["vit-d6-h4 trained", "vit-d6-h4 random weights", "vit-d6-h8 trained"]
    write(folder, "sparseness", rows, conditions)


def strong_units(folder):
    """Necessity of three ViTs: .4, .5, .6, and half of that of place."""
    rows = []
    for heads, number in ((1, 0.4), (2, 0.5), (4, 0.6)):
        name = f"vit-d6-h{heads}"
        rows.append(profile(name, "necessity N, probability", number))
        rows.append(profile(name, "damage, permuted − removed, KL", number / 2))
        rows.append(profile(name, "necessity N, probability", -number, by="zero"))
    write(folder, "ablation-heads-all", rows)


def conflicts(folder, vit, cnn, scatter=0.01):
    """(bias, share of decided trials) of pairs of equal accuracy."""
    rows, clean = [], []
    for kind, numbers in ((VIT, vit), (CNN, cnn)):
        for i, name in enumerate(seeds(kind)):
            clean.append(accuracy(name, 0.9))
            for quantity, value in zip(("shape_bias", "decided"), numbers, strict=True):
                rows.append(behaviour(name, quantity, "conflict", value + scatter * i, n=900))
    write(folder, "accuracy", clean)
    write(folder, "cue-conflict", rows)


def deeper(folder, slope):
    """A sweep of depth by which N grows, and falls where zeros take the place of attention."""
    rows = []
    for name in GROUPS["depth"].members():
        size, shift = math.log2(Spec.parse(name).depth), 0.002 * jitter(name)
        for by, sign in (("renormalise", 1), ("zero", -1)):
            n = 0.5 + sign * slope * size + shift
            rows.append(profile(name, "necessity N, probability", n, by=by))
        kept = 1 - 0.3 * 2 ** (-0.5 * size + shift)
        rows.append(profile(name, "effect, top kept at 1%, probability", kept))
    write(folder, "ablation-depth-all", rows)


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
            assert f"{board.RUNG_NAMES[rules.RUNGS[rung]]}: not tested here" in head.get_text()
        assert len(card.select("ul > li")) == len(claim.criteria)
        assert not card.select("ul > :not(li)")


def test_a_card_shows_a_criterion_once_that_is_its_own_fallback(shown):
    sparse_attention(shown.out)
    captions = [each.get_text() for each in by_id(shown.cards("hu1"))["hu1"].select("caption")]
    assert captions == [each.quantity for each in claims.BY_ID["hu1"].criteria]


def test_a_card_says_and_draws_what_was_measured(shown):
    strong_units(shown.out)
    row = shown.recorded().query("claim == 'hu3' and criterion == 'necessity'").iloc[0]
    card = by_id(shown.cards("hu3"))["hu3"]
    quantity = claims.BY_ID["hu3"].criteria[0].quantity
    (table,) = (t for t in card.select("table") if t.caption.get_text() == quantity)
    (line,) = table.select("tr")
    assert f"+0.500 [{row.low:+.3f}, {row.high:+.3f}], 3 models" in line.get_text()
    place = float(line.circle["cx"])
    start, end = map(float, re.findall(r"M([\d.]+) [\d.]+H([\d.]+)", str(line.svg))[0])
    share = (row.estimate - row.low) / (row.high - row.low)
    assert (place - start) / (end - start) == pytest.approx(share, abs=0.02)


def test_each_variant_of_a_criterion_has_a_line_of_its_own_on_a_card(shown):
    conflicts(shown.out, vit=(0.6, 0.9), cnn=(0.3, 0.8))
    card = by_id(shown.cards("tu2"))["tu2"]
    lines = {row.th.get_text(): row.get_text() for row in card.select("tr") if row.th}
    assert set(lines) == {"ViT", "CNN"}
    assert "+0.910 [" in lines["ViT"]
    assert "+0.810 [" in lines["CNN"]


def test_a_card_shows_other_settings_and_whether_they_agree(shown):
    deeper(shown.out, 0.1)
    card = by_id(shown.cards("hu4"))["hu4"]
    (others,) = (d for d in card.select("details details") if "Other" in d.summary.get_text())
    lines = [[cell.get_text() for cell in row.select("td")] for row in others.select("tr")]
    assert others.summary.get_text() == f"Other settings ({len(lines)})"
    said = {(criterion, setting): says for criterion, setting, _, says in lines}
    assert said["N", "zero"] == "differs"
    assert said["N", "without the smallest"] == "agrees"
    numbers = {(criterion, setting): number for criterion, setting, number, _ in lines}
    assert re.fullmatch(r"−0\.\d+ \[−0\.\d+, −0\.\d+\], 15 models", numbers["N", "zero"])
    assert "Other settings" not in str(by_id(shown.cards("hu5"))["hu5"])


def test_cards_of_trends_say_how_often_an_effect_would_be_found(shown):
    cards, simulated = by_id(shown.cards()), power.of_rules().set_index(["claim", "effect"])
    for name, card in cards.items():
        assert ("simulated repetitions" in card.get_text()) == (name in power.TRENDS)
    for name, group in power.TRENDS.items():
        said = cards[name].get_text()
        assert f"with {len(GROUPS[group].members())} networks" in said
        assert f"2 Δ in {100 * simulated.loc[(name, 2), rules.SUPPORTED]:.0f} %" in said


@pytest.mark.parametrize(
    ("beyond", "verdict", "words"),
    [
        (0.1, rules.SUPPORTED, "sparse beyond the spread of logits"),
        (-0.1, rules.MIXED, "sparse weights"),
    ],
)
def test_of_sparse_attention_it_is_said_in_which_of_two_ways(shown, beyond, verdict, words):
    sparse_attention(shown.out, beyond)
    head = by_id(shown.cards("hu1"))["hu1"].h4.get_text()
    assert head.endswith(f"objects: {verdict} ({words})")
    assert f"**{verdict}** ({words}) on objects" in shown.box("hu1").data


def test_numbers_of_a_claim_that_is_not_judged_are_shown_model_by_model(shown):
    rows = [
        behaviour(name, "error_consistency", "conflict", value) | {"low": 0.1, "high": 0.3}
        for name, value in (("some/vit", 0.2), ("some/cnn", 0.25))
    ]
    write(shown.out, "cue-conflict", rows, rung="imagenet")
    card = by_id(shown.cards("tu1"))["tu1"]
    assert "ImageNet: not tested here" in card.h4.get_text()
    lines = [[cell.get_text() for cell in row.select("td")] for row in card.select("tr")]
    assert lines == [
        ["consistency", "some/vit", "+0.200 [+0.100, +0.300], 1 model", claims.ONE_PAIR],
        ["consistency", "some/cnn", "+0.250 [+0.100, +0.300], 1 model", claims.ONE_PAIR],
    ]
    assert not card.select("li")
    assert claims.ONE_PAIR in shown.box("tu1").data
    assert shown.effects("tu1").empty


def test_what_has_no_upper_end_is_drawn_to_the_edge():
    rows = pd.DataFrame([{"estimate": 0.1, "low": -math.inf, "high": math.inf}])
    (drawn,) = claim_cards.intervals(rows, rules.Effect(+1, 0.03))
    assert f"M0.0 {claim_cards.ROW / 2}H{claim_cards.WIDTH:.1f}" in drawn


def test_rules_are_said_in_words():
    declared = {criterion.rule for claim in claims.CLAIMS for criterion in claim.criteria}
    said = {rule: claim_cards.counts(rule) for rule in declared}
    assert len(set(said.values())) == len(declared)
    assert (
        said[rules.Effect(+1, 0.03)] == "the interval lies above 0, and the effect is 0.03 or more"
    )


def test_every_source_of_a_claim_has_a_name():
    assert {key for claim in claims.CLAIMS for key in claim.sources} == set(claim_cards.SOURCES)


def test_what_is_not_tested_has_a_reason_or_says_what_is_lacking(tmp_path):
    lacking = {
        (claim.id, rung): progress.lacking(claim.id, rung, tmp_path)
        for claim in claims.CLAIMS
        for rung in (rules.RUNGS[letter] for letter in claim.rungs)
    }
    assert all(lacking.values())
    assert lacking["hu9", "objects"] == claims.BY_ID["hu9"].reason
    assert lacking["zh", "cifar10"] == "none of its models is trained here"
    assert lacking["hu6", "cifar10"].endswith("group decoupled is not declared on this rung")
    assert "group" not in lacking["hu6", "objects"] + lacking["hu1", "cifar10"]


def test_a_verdict_shown_is_the_one_that_the_rules_give(shown):
    sparse_attention(shown.out)
    strong_units(shown.out)
    found = evidence(shown.out)[list(rules.EVIDENCE)]
    expected = {(v.claim, v.rung): v.verdict for v in rules.verdicts(found, claims.CLAIMS)}
    assert expected["hu1", "objects"] == rules.SUPPORTED
    found = shown.verdicts().set_index(["claim", "rung"])["verdict"].to_dict()
    assert found == expected
    assert all(shown.verdict_of(*place) == verdict for place, verdict in expected.items())
    for claim in claims.CLAIMS:
        text = shown.box(claim.id).data
        of = [expected[claim.id, rules.RUNGS[rung]] for rung in claim.rungs]
        if set(of) == {rules.NOT_TESTED}:
            assert f"**{rules.NOT_TESTED}**" in text
            assert " on objects" not in text
            continue
        for rung in claim.rungs:
            name = board.RUNG_NAMES[rules.RUNGS[rung]]
            verdict = expected[claim.id, rules.RUNGS[rung]]
            assert re.search(rf"\*\*{verdict}\*\*.* on .*{name}", text)


def test_an_effect_is_shown_with_its_interval_and_its_models(shown):
    strong_units(shown.out)
    row = shown.recorded().query("claim == 'hu3' and criterion == 'necessity'").iloc[0]
    interval = f"[{row.low:+.3f}, {row.high:+.3f}]"
    assert f": **+0.500** {interval}, 3 models" in shown.box("hu3").data
    assert interval in shown.effects("hu3")["interval"].tolist()


def test_a_share_has_no_sign(shown):
    sparse_attention(shown.out)
    assert "**1.000** [1.000, 1.000], 5 models" in shown.box("hu1").data


def test_what_has_no_interval_says_why(shown):
    rows = [
        accuracy(name, value + 0.001 * i)
        for names in BUDGETS
        for design, value in zip(names, (0.7, 0.7, 0.8), strict=True)
        for i, name in enumerate(seeds(design))
    ]
    write(shown.out, "accuracy", rows)
    assert "**1.000** (a share, no interval), 54 models" in shown.box("zh").data
    rows = [layer(name, "field_radius", 0.9, depth=0.3) for name in seeds(VIT)]
    rows += [layer(VIT, "location", 0.9, unit="interior", depth=None)]
    rows += [layer(CNN, "location", 0.2, unit="interior", depth=None)]
    write(shown.out, "representation", rows)
    again = Board(shown.out)
    said = again.effects("ra7", "ra4").set_index("quantity")["interval"]
    assert said.filter(like="in pixels").tolist() == ["(counted, no interval)"]
    assert said.filter(like="same grid").tolist() == ["(too few seeds for an interval)"]


def test_of_a_contradiction_both_sides_are_shown_and_nothing_else(shown):
    conflicts(shown.out, vit=(0.6, 0.9), cnn=(0.3, 0.2))
    said = shown.box("tu2").data
    assert "because of: decided" in said
    # Not the difference of the biases, which passes.
    assert "share of decided trials (ViT): **+0.910** [+0.885, +0.935], 3 models; but" in said
    assert "; but (CNN): **+0.210**" in said
    assert said.count("**+") == 2


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.0, 1.0, "(any share is possible)"), (0.0, 0.5, "[0.000, 0.500]")],
)
def test_a_share_of_which_nothing_is_ruled_out_has_no_interval(low, high, said):
    numbers = {
        "claim": "ba2",
        "criterion": "corruptions",
        "estimate": 0.0,
        "low": low,
        "high": high,
    }
    (row,) = pd.DataFrame([numbers]).itertuples()
    assert board._interval(row) == said


def test_every_quantity_stands_alone():
    for claim in claims.CLAIMS:
        for criterion in claim.every:
            said = claims.quantity(claim.id, criterion)
            assert not re.search(r"\bthe same\b(?! (design|grid|relative))|^that ", said)
    declared = {(claim.id, each.name) for claim in claims.CLAIMS for each in claim.every}
    assert set(claims.SHOWN) <= declared


def test_a_claim_of_several_criteria_names_that_which_it_shows(shown):
    conflicts(shown.out, vit=(0.5, 0.9), cnn=(0.25, 0.9))
    assert "objects: *bias*, shape ÷ (shape + texture)" in shown.box("tu2").data


def test_seeds_that_agree_to_the_last_digit_have_an_interval_all_the_same(shown):
    conflicts(shown.out, vit=(0.5, 0.9), cnn=(0.25, 0.9), scatter=0.0)
    assert "**+0.250** [+0.250, +0.250], 3 pairs" in shown.box("tu2").data


def test_a_model_counts_once_all_its_conditions_are_recorded(shown):
    sparse_attention(shown.out)
    declared = {m for name in ("heads", "depth") for m in GROUPS[name].members()}
    said = f"1 of {len(declared)} models recorded in all settings"
    assert progress.lacking("hu1", "objects", shown.out) == said


def test_a_claim_lacks_nothing_once_every_condition_is_recorded(tmp_path, monkeypatch):
    declared = EXPERIMENTS["sparseness"]
    models = [m for m in declared.models("objects") if m in GROUPS["cnn-depth"].members()]
    conditions = [f"{m} {i}" for m in models for i in range(declared.count(m))]
    monkeypatch.setattr(progress.zoo, "manifest", lambda: dict.fromkeys(models))
    assert progress.commands("hu8", out=tmp_path / "before") == [
        "python -m experiments replicate sparseness"
    ]
    (tmp_path / "after").mkdir()
    write(tmp_path / "after", "sparseness", [], conditions)
    assert progress.commands("hu8", out=tmp_path / "after") == []


def test_commands_train_first(tmp_path, monkeypatch):
    monkeypatch.setattr(progress.zoo, "manifest", dict)
    assert progress.commands("hu5", "cifar10", tmp_path) == [
        "python -m experiments train --group cifar10",
        "python -m experiments replicate ablation-cnn --rung cifar10",
    ]
    assert progress.commands("hu6", out=tmp_path) == [
        "python -m experiments train --group decoupled",
        "python -m experiments replicate ablation-heads-all",
    ]
    assert progress.commands("ra1", "imagenet", tmp_path) == [
        "python -m experiments replicate similarity --rung imagenet --data photographs/"
    ]
    assert progress.commands("hu9", out=tmp_path) == []
    assert progress.commands("tu1", "imagenet", tmp_path) == []


def test_what_a_claim_is_judged_from_is_declared():
    assert set(progress.SECTIONS) <= set(claims.BY_ID)
    judged = {claim.id for claim in claims.CLAIMS if claim.criteria}
    assert judged <= set(CLAIMS) <= set(claims.BY_ID), (
        "Each claim has a function of its name, listed in CLAIMS of its module, and only these."
    )
    for name, claim in CLAIMS.items():
        assert bool(claim.experiments) == bool(claims.BY_ID[name].criteria)
        assert set(claim.experiments) <= {*EXPERIMENTS, *STANDALONE}
        assert set(claim.groups) <= set(GROUPS)


@pytest.mark.parametrize("claim", CLAIMS)
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
    boxes = [cell.source for cell in cells if "board.box(" in cell.source]
    assert any(f'"{claim}"' in box for box in boxes), f"board.box shows {claim} in {chapter}."
    assert f'href="{chapter}.ipynb#{heading.replace(" ", "-")}"' in claim_cards.shown_in(claim)


def test_the_marks_differ_without_their_colours():
    assert set(board.MARKS) == set(rules.VERDICTS)
    assert len({mark for mark, *_ in board.MARKS.values()}) == len(rules.VERDICTS)


def test_the_figure_has_a_mark_for_each_verdict(shown):
    drawn = [text.get_text() for text in shown.figure("hu1", "co").axes[0].texts]
    assert drawn == [board.MARKS[rules.NOT_TESTED][0]] * 4  # three rungs, and one


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
