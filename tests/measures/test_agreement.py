import math

import pytest
import torch
from scipy import stats

from utils.measures.agreement import standard_ranks


def test_ties_share_their_rank_and_constant_maps_have_none():
    a, b = torch.tensor([1.0, 2, 2, 0, 5]), torch.tensor([0.0, 3, 1, 1, 1])
    found = (standard_ranks(a) * standard_ranks(b)).sum().item()
    assert found == pytest.approx(stats.spearmanr(a, b).statistic)
    assert standard_ranks(torch.ones(1, 4)).isnan().all()
    assert standard_ranks(torch.tensor([1.0, math.nan, 2])).isnan().all()
