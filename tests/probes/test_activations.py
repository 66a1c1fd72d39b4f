"""What ActivationRecorder promises about names, values, streaming and bad input."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from utils.probes import ActivationRecorder, activations


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=5).eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def hooks_on(model) -> int:
    return sum(len(v) for m in model.modules() for k, v in vars(m).items() if "_hooks" in k)


def test_resnet18_calls_nine_relu_modules_seventeen_times(resnet, images):
    with ActivationRecorder(resnet, "*relu") as record:
        resnet(images)
    names = list(record.outputs)
    assert names[:3] == ["relu", "layer1.0.relu", "layer1.0.relu#2"]
    assert (len(names), len({name.split("#")[0] for name in names})) == (17, 9)
    assert all((values >= 0).all() for values in record.outputs.values())


@torch.inference_mode()
def test_a_recorded_batch_norm_is_not_overwritten_by_what_follows_it(resnet, images):
    with ActivationRecorder(resnet, ["layer1.0.*", "maxpool"]) as record:
        resnet(images)
    values, block = record.outputs, resnet.layer1[0]
    first = block.bn1(block.conv1(values["maxpool"]))  # overwritten by the in-place ReLU
    torch.testing.assert_close(values["layer1.0.bn1"], first)
    torch.testing.assert_close(values["layer1.0.relu"], first.relu())
    second = block.bn2(block.conv2(first.relu()))  # overwritten by `out += identity`
    torch.testing.assert_close(values["layer1.0.bn2"], second)
    torch.testing.assert_close(values["layer1.0.relu#2"], (second + values["maxpool"]).relu())


@torch.inference_mode()
def test_recording_leaves_the_logits_exactly_as_they_were(resnet, images):
    plain = resnet(images)
    with ActivationRecorder(resnet, "*") as record:
        logits = resnet(images)
    assert logits.equal(plain)
    assert record.outputs["fc"].equal(plain)
    with ActivationRecorder(resnet, "*", reduce=lambda name, values: None):
        assert resnet(images).equal(plain)


def test_reduce_streams_what_would_have_been_kept(resnet, images):
    with ActivationRecorder(resnet, "*relu") as record:
        resnet(images)
    with ActivationRecorder(resnet, "*relu", reduce=lambda _, x: x.mean().item()) as stream:
        for half in images.split(1):
            resnet(half)
    assert list(stream.results) == list(record.outputs)
    for name, means in stream.results.items():
        assert sum(means) / 2 == pytest.approx(record.outputs[name].mean().item(), rel=1e-4)
    with pytest.raises(RuntimeError, match=r"keeps no outputs .* is in \.results"):
        _ = stream.outputs


def test_several_passes_are_concatenated_along_the_batch(resnet, images):
    with ActivationRecorder(resnet, "*relu") as whole:
        resnet(images)
    with ActivationRecorder(resnet, "*relu") as parts:
        for half in images.split(1):
            resnet(half)
    assert len(parts.outputs) == 17
    for name, values in parts.outputs.items():
        torch.testing.assert_close(values, whole.outputs[name], atol=1e-5, rtol=1e-4)


def test_values_are_detached_and_gradients_still_flow(resnet, images):
    x = images.requires_grad_()
    (plain,) = torch.autograd.grad(resnet(x).sum(), x)
    with ActivationRecorder(resnet, "*relu") as record:
        (recorded,) = torch.autograd.grad(resnet(x).sum(), x)
    assert not any(values.requires_grad for values in record.outputs.values())
    torch.testing.assert_close(recorded, plain)


def test_names_are_those_of_timm_too():
    model = timm.create_model("resnet18").eval()
    with ActivationRecorder(model, ["*act*"]) as record:
        model(torch.rand(1, 3, 32, 32))
    assert list(record.outputs)[:3] == ["act1", "layer1.0.act1", "layer1.0.act2"]
    assert len(record.outputs) == 17


def test_layers_are_given_as_modules_too(resnet, images):
    with ActivationRecorder(resnet, [resnet.layer2, "fc", resnet.layer1[0].conv1]) as record:
        resnet(images)
    assert list(record.outputs) == ["layer1.0.conv1", "layer2", "fc"]
    with ActivationRecorder(resnet, resnet.layer2) as one:  # an nn.Sequential is one layer
        resnet(images)
    assert list(one.outputs) == ["layer2"]
    assert one.outputs["layer2"].equal(record.outputs["layer2"])


def test_activations_are_the_outputs_of_a_recorder(resnet, images):
    with torch.no_grad(), ActivationRecorder(resnet, ["*relu", "fc"]) as record:
        resnet(images)
    found = activations(resnet, images.requires_grad_(), ["*relu", "fc"])
    assert list(found) == list(record.outputs)
    assert all(values.equal(record.outputs[layer]) for layer, values in found.items())
    assert list(activations(resnet, images, resnet.fc)) == ["fc"]
    assert hooks_on(resnet) == 0


def test_a_recorder_says_what_it_records_and_has_recorded(resnet, images):
    record = ActivationRecorder(resnet, "*relu")
    assert repr(record) == ("<ActivationRecorder of ResNet: outputs of '*relu'; nothing read yet>")
    with record:
        resnet(images)
    assert repr(record) == (
        "<ActivationRecorder of ResNet: outputs of '*relu'; 17 read into .outputs: relu, "
        "layer1.0.relu, layer1.0.relu#2 and 14 more>"
    )


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_after_an_exception_no_hook_stays(resnet, images, error):
    def fail(name, values):
        raise error("broken")

    with pytest.raises(error, match="broken"), ActivationRecorder(resnet, "*relu", reduce=fail):
        resnet(images)
    assert hooks_on(resnet) == 0


def test_a_pattern_that_matches_nothing_names_the_nearest_layers(resnet):
    match = r"No layer of ResNet matches 'layer1\.0\.act': .* layer1\.0"
    with pytest.raises(ValueError, match=match), ActivationRecorder(resnet, "layer1.0.act"):
        pass
    assert hooks_on(resnet) == 0


def test_layers_that_are_none_are_refused_by_one_sentence(resnet):
    for layers, error, match in (
        (resnet, ValueError, r"This ResNet is no layer .* one within it \(conv1, bn1, relu and 6"),
        (
            nn.Linear(2, 2),
            ValueError,
            "This Linear is no layer of ResNet .* own modules, or a name",
        ),
        (0, TypeError, "ResNet are given by names, globs or modules, not by 0"),
        (None, TypeError, 'needs layers: give names, modules, or "\\*" for all'),
        (0.5, TypeError, r"by their names, by globs or as modules, not 0\.5"),
    ):
        with pytest.raises(error, match=match) as caught, ActivationRecorder(resnet, layers):
            pass
        assert str(caught.value).endswith(".")


def test_a_layer_that_was_never_called_is_named():
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1).eval()
    match = r"never called blocks\.0\.attn\.attn_drop: fused attention.*read: blocks\.0\.attn"
    with (
        pytest.raises(RuntimeError, match=match),
        ActivationRecorder(model, ["*attn_drop", "blocks.0.attn"]),
    ):
        model(torch.rand(1, 3, 32, 32))


def test_a_block_without_a_pass_is_an_error(resnet):
    match = "ActivationRecorder saw nothing: no forward pass of ResNet"
    with pytest.raises(RuntimeError, match=match), ActivationRecorder(resnet, "fc") as record:
        pass
    with pytest.raises(RuntimeError, match="has read nothing yet"):
        _ = record.outputs


def test_an_output_that_is_no_tensor_is_refused():
    model = torchvision.models.VisionTransformer(32, 16, 1, 3, 48, 96).eval()
    match = r"'encoder\.layers\.encoder_layer_0\.self_attention' puts out a tuple, not a tensor"
    with pytest.raises(TypeError, match=match), ActivationRecorder(model, "*self_attention"):
        model(torch.rand(1, 3, 32, 32))


def test_a_compiled_model_is_refused():
    model = nn.Sequential(nn.Linear(2, 2))
    model.compile()
    with (
        pytest.raises(
            ValueError, match="Sequential cannot be probed because the model is compiled"
        ),
        ActivationRecorder(model, "0"),
    ):
        pass
