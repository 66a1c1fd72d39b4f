"""An ablation of any model, in whatever wrapper, is what a plain hook makes of it."""

import warnings
from itertools import cycle

import pytest
import torch
from helpers.eager import build
from helpers.layouts import MODELS, WRAPPERS, by_a_hook, model, some, true_axes, without_channels
from helpers.model_families import FAMILIES, UNREADABLE, Family
from helpers.naive_ablation import lively
from helpers.small_models import hooks_on

from utils.probes import AblationSpec, Ablator
from utils.probes.anatomy import channel_axis
from utils.probes.channels import follow_channels

LAYERS = 4  # of each model


def outputs(whole, images):
    """Layer → what it puts out in its first call, where that is a tensor with an image an entry."""
    found = {}

    def note(layer):
        def hook(module, args, output):
            if isinstance(output, torch.Tensor) and len(output) == len(images):
                found.setdefault(layer, output.shape)

        return hook

    handles = [m.register_forward_hook(note(layer)) for layer, m in whole.named_modules() if layer]
    with torch.no_grad():
        whole(images)
    for handle in handles:
        handle.remove()
    return found


def half(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator) < 0.5).double()


def agrees(whole, images, layer, spec, change):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a cached prefix holds in all of these
        found = Ablator(whole).run(images, [spec, spec])
    expected = by_a_hook(whole, layer, images, change)
    torch.testing.assert_close(found, torch.stack([expected] * 2), atol=1e-9, rtol=1e-9)


EVERY = [*FAMILIES, *(Family(f.name, f.model, f.size, 0) for f in UNREADABLE)]
WRAPPED = {
    f"{family.model} {how}": (family, how)
    for family, how in zip(EVERY, cycle(WRAPPERS), strict=False)
}


@pytest.mark.slow
@pytest.mark.parametrize(("family", "how"), WRAPPED.values(), ids=WRAPPED)
def test_units_of_every_family_are_ablated_as_by_a_hook(family, how):
    inner, images = build(family)
    inner, images = lively(inner, images).double(), images.double()
    whole = WRAPPERS[how][0](inner)
    shapes = outputs(whole, images)
    for seed, layer in enumerate(some(list(shapes), LAYERS)):
        shares = half(shapes[layer], seed)
        spec = AblationSpec(layer, units=shares.flatten(1))
        agrees(whole, images, layer, spec, lambda output, s=shares: output * (1 - s))


@pytest.mark.parametrize("how", WRAPPERS)
@pytest.mark.parametrize("name", MODELS)
def test_channels_first_and_last_are_ablated_as_by_a_hook(name, how):
    wrap, path = WRAPPERS[how]
    size = MODELS[name].size
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    axes = {layer: axis for layer, axis in true_axes(name).items() if "drop" not in layer}
    whole = wrap(model(name))
    for layer in some(list(axes), LAYERS)[1:3]:
        spec = AblationSpec(path + layer, channels=[0, 2, 5])
        found = Ablator(whole).run(images, [spec, spec])
        change = without_channels(axes[layer], [0, 2, 5])
        expected = by_a_hook(whole, path + layer, images, change)
        scale = float(expected.abs().max())
        torch.testing.assert_close(found, torch.stack([expected] * 2), atol=1e-5 * scale, rtol=1e-5)


def test_the_axis_is_known_from_the_whole_model_whatever_stands_in_it_later():
    whole = MODELS["EfficientViT"].make().eval()
    layers = ["head.in_conv.act", "stem.in_conv.act"]
    known = [channel_axis(whole, layer, 4) for layer in layers]
    whole.stages = torch.nn.Linear(1, 1)
    for part in (whole.head.in_conv, whole.stem.in_conv):
        part.conv, part.norm = torch.nn.Linear(1, 1), torch.nn.Identity()
    assert [channel_axis(whole, layer, 4) for layer in layers] == known == [1, 1]


def test_finding_out_leaves_no_trace_on_a_model():
    whole = MODELS["torchvision ConvNeXt"].make().train()
    norm = torch.nn.BatchNorm2d(3)
    whole = torch.nn.Sequential(norm, whole)
    state = {name: value.clone() for name, value in whole.state_dict().items()}
    modes = [module.training for module in whole.modules()]
    before = hooks_on(whole)
    follow_channels(whole, torch.rand(3, 3, 64, 64))
    assert [module.training for module in whole.modules()] == modes
    assert hooks_on(whole) == before
    assert all(value.equal(state[name]) for name, value in whole.state_dict().items())

    whole.eval()
    spec = AblationSpec("1.features.3.0.block.4", channels=[0])
    Ablator(whole).run(torch.rand(2, 3, 64, 64), spec)
    assert not any("_compiled_call_impl" in vars(module) for module in whole.modules())
    assert hooks_on(whole) == before
