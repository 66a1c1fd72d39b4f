"""Reading a forward pass: attention maps and activations."""

from utils.probes.activations import ActivationRecorder
from utils.probes.attention import AttentionProbe, attention_layers
from utils.probes.hooks import TokenLayout, token_layout

__all__ = [
    "ActivationRecorder",
    "AttentionProbe",
    "TokenLayout",
    "attention_layers",
    "token_layout",
]
