"""The table of evidence as a whole: what it is made of, and that the rules take it."""

import pytest
from helpers.tables import profile, write

from experiments.evidence import claims, rules
from experiments.evidence.recorded import Recorded
from experiments.evidence.table import CLAIMS, COLUMNS, evidence
from experiments.training.groups import GROUPS


def test_nothing_recorded_is_no_evidence_and_nothing_is_tested(tmp_path):
    found = evidence(tmp_path)
    assert found.empty
    said = rules.verdicts(found[rules.EVIDENCE], claims.CLAIMS)
    assert {verdict.verdict for verdict in said} == {rules.NOT_TESTED}


def test_every_claim_that_can_be_judged_has_evidence_and_no_other_has():
    judged = {claim.id for claim in claims.CLAIMS if claim.criteria}
    assert judged <= set(CLAIMS) <= set(claims.BY_ID)


def test_evidence_of_all_rungs_is_taken_by_the_rules(tmp_path):
    for rung in ("objects", "cifar10"):
        name = "" if rung == "objects" else "cifar10/"
        rows = [
            profile(name + model, "necessity N, probability", 0.4 + 0.01 * i)
            for i, model in enumerate(GROUPS["heads"].names)
        ]
        write(tmp_path, "ablation-heads-all", rows, rung)
    found = evidence(tmp_path)
    assert tuple(found.columns) == COLUMNS
    assert found[["claim", "rung", "criterion", "models"]].to_numpy().tolist() == [
        ["hu3", "objects", "necessity", 5],
        ["hu3", "cifar10", "necessity", 5],
    ]
    said = rules.verdicts(found[rules.EVIDENCE], claims.CLAIMS)
    because = {v.because for v in said if v.claim == "hu3" and v.rung != "imagenet"}
    assert because == {"not recorded on this rung"}  # of place


def test_networks_of_a_group_are_known_by_their_design_however_many_seeds_there_are(tmp_path):
    names = ["vit-d6-h4", "vit-d6-h4-s7", "vit-d6-h4-gap", "resnet-d20", "cifar10/vit-d6-h4"]
    objects, photographs = (Recorded(rung, tmp_path) for rung in ("objects", "cifar10"))
    assert objects.models(names, "heads") == ["vit-d6-h4", "vit-d6-h4-s7"]
    assert photographs.models(names, "heads", "depth") == ["cifar10/vit-d6-h4"]
    assert objects.kinds(names) == (["vit-d6-h4", "vit-d6-h4-s7"], ["resnet-d20"])


def test_logarithms_of_nothing_and_of_less_are_no_values(tmp_path):
    kept = {"vit-d2-h4": 0.75, "vit-d4-h4": 1.0, "vit-d6-h4": 1.2}
    rows = [profile(n, "effect, top kept at 1%, probability", x) for n, x in kept.items()]
    rows.append(profile("vit-d8-h4", "half kept, top, probability", 0.125))
    write(tmp_path, "ablation-depth-all", rows)
    found = Recorded("objects", tmp_path).values().set_index("model")["value"]
    assert found.dropna().to_dict() == pytest.approx({"vit-d2-h4": -2, "vit-d8-h4": -3})
    assert set(found.index[found.isna()]) == {"vit-d4-h4", "vit-d6-h4"}
