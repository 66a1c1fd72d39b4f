"""Reading a forward pass, or changing it: attention maps, activations, ablations."""

from .ablation.ablator import Ablator
from .ablation.draws import keyed_orders, mass_matched, uniform_shrink
from .ablation.specs import AblationSpec
from .activations import ActivationRecorder
from .anatomy import TokenLayout, attention_layers, token_layout
from .attention import AttentionProbe

__all__ = [
    "AblationSpec",
    "Ablator",
    "ActivationRecorder",
    "AttentionProbe",
    "TokenLayout",
    "attention_layers",
    "keyed_orders",
    "mass_matched",
    "token_layout",
    "uniform_shrink",
]
