"""Feature networks: a classifier that is trained once, and Inception with weights from a file."""

import pytest
import torch
from pdiff_plugins.generation.features import Inception, build_features, measure_accuracy
from pdiff_plugins.images.data import build_splits

from pdiff.runtime.errors import PdiffError

CPU = torch.device("cpu")
SMALL = {"type": "classifier", "size": 6, "widths": [16, 32], "epochs": 20, "lr": 1e-2}


@pytest.fixture(scope="module")
def splits():
    """Digits of eight pixels, in [-1, 1]."""
    splits = build_splits({"type": "digits", "size": 8, "train": 500, "select": 100}, 400, CPU, 0)
    for split in splits.values():
        split.mean, split.std = split.mean + 0.5, split.std * 0.5
    return splits


@pytest.fixture(scope="module")
def trained(splits, tmp_path_factory):
    """Return a trained classifier and its folder."""
    folder = tmp_path_factory.mktemp("features")
    return build_features(SMALL, splits, 0, folder), folder


def test_classifier_learns_the_classes_and_says_how_well(trained, splits):
    network, _ = trained
    assert network.accuracy > 0.6
    assert network.accuracy == measure_accuracy(network.network, splits["test"])
    images = splits["test"].pixels(slice(0, 5))
    features, probabilities = network(images)
    assert features.shape == (5, 6)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(5))


def test_facts_hold_name_accuracy_and_hash(trained):
    facts = trained[0].facts()
    assert facts["name"] == "own classifier, 6 features"
    assert facts["accuracy"] == trained[0].accuracy
    assert len(facts["sha256"]) == 64


def test_classifier_is_trained_once_and_then_read(trained, splits):
    network, folder = trained
    path = folder / "classifier.safetensors"
    before = path.stat().st_mtime_ns
    again = build_features(SMALL, splits, 0, folder)
    assert path.stat().st_mtime_ns == before
    assert again.facts() == network.facts()
    images = splits["test"].pixels(slice(0, 5))
    assert torch.equal(again(images)[0], network(images)[0])


def test_same_seed_gives_the_same_file_and_another_seed_another(trained, splits, tmp_path):
    torch.manual_seed(9)
    for name, seed in (("again", 0), ("other", 1)):
        build_features(SMALL, splits, seed, tmp_path / name)
    file = "classifier.safetensors"
    assert (tmp_path / "again" / file).read_bytes() == (trained[1] / file).read_bytes()
    assert (tmp_path / "other" / file).read_bytes() != (trained[1] / file).read_bytes()


@pytest.mark.parametrize("key", ["size", "epochs", "batch_size"])
def test_settings_below_one_are_refused(splits, tmp_path, key):
    with pytest.raises(PdiffError, match=rf"^task\.features\.{key}: got 0, expected an integer from 1 on"):
        build_features({**SMALL, key: 0}, splits, 0, tmp_path)


def test_unknown_features_are_refused_with_those_that_exist(splits, tmp_path):
    with pytest.raises(PdiffError, match=r"^task\.features\.type: got 'vgg'\. Known: classifier, inception\.$"):
        build_features({"type": "vgg"}, splits, 0, tmp_path)


def test_weights_of_inception_that_cannot_be_had_are_one_clear_line(splits, tmp_path):
    absent = str(tmp_path / "absent.pth")
    with pytest.raises(PdiffError, match=r"^task\.features: the weights of Inception cannot be had .*absent\.pth") as e:
        build_features({"type": "inception", "weights": absent}, splits, 0, tmp_path)
    assert "give its path as weights, or take the classifier." in str(e.value)
    assert "\n" not in str(e.value)


class Pixels(torch.nn.Module):
    """Takes the place of Inception: gives the pixels back."""

    def forward(self, images):
        """Return what Inception would get."""
        return images.flatten(1)


def test_inception_gets_bytes_of_three_channels():
    images = torch.tensor([-1.0, 0.0, 1.0]).reshape(3, 1, 1, 1)
    features, probabilities = Inception(Pixels())(images)
    assert features.dtype == torch.uint8
    assert features.tolist() == [[0] * 3, [128] * 3, [255] * 3]
    assert probabilities is None
