"""How sparse is a response? The book's sparseness measures, under one name.

`sparsity.gini(r)` and the others like it measure a vector (`vector`); `LifetimeSparseness` and
`PopulationSparseness` accumulate over minibatches and ranks (`streaming`); `half_peak_fraction`
counts responses near a unit's own best (`half_peak`); the rest are the controls that belong to
every number (`controls`).
"""

from typing import TYPE_CHECKING, Any

from .controls import (
    PatchRows,
    PlacementOverlap,
    gaussian_gini,
    gaussian_logit_rows,
    mean_map,
    patch_rows,
    permute_heads,
    placement_overlap,
    shuffle_stimuli,
)
from .half_peak import HalfPeakFraction, half_peak_fraction
from .vector import (
    active_fraction,
    excess_kurtosis,
    gini,
    hoyer,
    normalised_entropy,
    treves_rolls,
    vinje_gallant,
)

if TYPE_CHECKING:
    from .streaming import (
        LifetimeSparseness,
        LifetimeSummary,
        PopulationSparseness,
        PopulationSummary,
    )

__all__ = [
    "HalfPeakFraction",
    "LifetimeSparseness",
    "LifetimeSummary",
    "PatchRows",
    "PlacementOverlap",
    "PopulationSparseness",
    "PopulationSummary",
    "active_fraction",
    "excess_kurtosis",
    "gaussian_gini",
    "gaussian_logit_rows",
    "gini",
    "half_peak_fraction",
    "hoyer",
    "mean_map",
    "normalised_entropy",
    "patch_rows",
    "permute_heads",
    "placement_overlap",
    "shuffle_stimuli",
    "treves_rolls",
    "vinje_gallant",
]


def __getattr__(name: str) -> Any:
    """What accumulates is imported when it is asked for: torchmetrics takes long to load."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import streaming

    return getattr(streaming, name)
