"""Reading a forward pass, or changing it: attention maps, activations, ablations."""

from utils.probes.ablation import Ablator
from utils.probes.ablation_draws import keyed_orders, mass_matched, uniform_shrink
from utils.probes.ablation_specs import AblationSpec
from utils.probes.activations import ActivationRecorder
from utils.probes.attention import AttentionProbe, attention_layers
from utils.probes.hooks import TokenLayout, token_layout

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
