"""Reading a forward pass, or changing it: attention maps, activations, ablations.

`attention_maps` and `activations` read what one forward pass holds; `AttentionProbe` and
`ActivationRecorder` read any number of passes, and can hand what they read to a function instead of
keeping it. `Ablator` runs a model with parts of it ablated, as each `AblationSpec` says.
`attention_layers`, `activation_layers` and `token_layout` tell what a model is made of;
`keyed_orders`, `mass_matched` and `uniform_shrink` make the controls of an ablation.
"""

from .ablation.ablator import Ablator
from .ablation.draws import keyed_orders, mass_matched, uniform_shrink
from .ablation.specs import AblationSpec
from .activations import ActivationRecorder, activations
from .anatomy import TokenLayout, activation_layers, attention_layers, token_layout
from .attention import AttentionProbe, attention_maps

__all__ = [
    "AblationSpec",
    "Ablator",
    "ActivationRecorder",
    "AttentionProbe",
    "TokenLayout",
    "activation_layers",
    "activations",
    "attention_layers",
    "attention_maps",
    "keyed_orders",
    "mass_matched",
    "token_layout",
    "uniform_shrink",
]
