"""How sparse is a response? The book's sparseness measures, under one name.

`sparsity.gini(r)` and its like measure a vector (`vector_measures.py`); `LifetimeSparseness` and
its like accumulate over minibatches and ranks (`streaming.py`); the half-peak fraction comes in
both forms (`half_peak.py`); `ablation_profile` asks what a network's answers owe to its strongest
responses (`ablation_profile.py`); the rest are the controls beside every number (`controls.py`).
"""

from utils.measures.ablation_profile import (
    AblationProfile,
    ablation_profile,
    matching_temperature,
)
from utils.measures.controls import (
    PatchRows,
    PlacementOverlap,
    gaussian_logit_rows,
    mean_map,
    patch_rows,
    permute_heads,
    placement_overlap,
    shuffle_stimuli,
)
from utils.measures.half_peak import (
    HalfPeak,
    HalfPeakFraction,
    HalfPeakSummary,
    PeakResponse,
    half_peak_fraction,
)
from utils.measures.streaming import (
    LifetimeSparseness,
    LifetimeSummary,
    PopulationSparseness,
    PopulationSummary,
)
from utils.measures.vector_measures import (
    active_fraction,
    excess_kurtosis,
    gini,
    hoyer,
    normalised_entropy,
    treves_rolls,
    vinje_gallant,
)

__all__ = [
    "AblationProfile",
    "HalfPeak",
    "HalfPeakFraction",
    "HalfPeakSummary",
    "LifetimeSparseness",
    "LifetimeSummary",
    "PatchRows",
    "PeakResponse",
    "PlacementOverlap",
    "PopulationSparseness",
    "PopulationSummary",
    "ablation_profile",
    "active_fraction",
    "excess_kurtosis",
    "gaussian_logit_rows",
    "gini",
    "half_peak_fraction",
    "hoyer",
    "matching_temperature",
    "mean_map",
    "normalised_entropy",
    "patch_rows",
    "permute_heads",
    "placement_overlap",
    "shuffle_stimuli",
    "treves_rolls",
    "vinje_gallant",
]
