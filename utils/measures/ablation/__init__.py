"""What a network's answers depend on: the damage as units are removed in order, and what it says.

`ablation_profile` removes units and measures (`profiling`, `conditions`, `units`, `outcomes`); its
`AblationProfile` holds the damage and sums it up (`profile`, `summary`, `curves`); `reliance` asks
whether a network needs the units at all, `head_effects` (`heads`) removes whole heads.
"""

from .heads import head_effects
from .profile import AblationProfile
from .profiling import ablation_profile
from .reliance import Reliance, reliance

__all__ = [
    "AblationProfile",
    "Reliance",
    "ablation_profile",
    "head_effects",
    "reliance",
]
