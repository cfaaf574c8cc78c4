"""Splits, normalisation and batches, from digits, arrays, folders and a torchvision dataset written here."""

import struct

import numpy as np
import pytest
import torch
from pdiff_plugins.images.data import Split, build_data, moments
from PIL import Image

from pdiff.runtime.errors import PdiffError

CPU = torch.device("cpu")
NAMES = ("train", "select", "test")


def digits(run_seed: int = 0, **settings):
    """Return the splits of the digits."""
    return build_data({"type": "digits", **settings}, 100, CPU, run_seed)


def rows_of(*splits) -> torch.Tensor:
    """Return the images of splits as rows in lexicographic order."""
    return torch.cat([split.images.flatten(1) for split in splits]).unique(dim=0)


def shares(labels: torch.Tensor) -> torch.Tensor:
    """Return the share of each class."""
    return labels.bincount(minlength=10) / len(labels)


def numbered(count: int, height: int = 4, width: int = 4, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 images that all differ, and labels in turn."""
    images = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return images, np.arange(count) % classes


def arrays() -> dict[str, np.ndarray]:
    """Return what an `.npz` file holds."""
    (x_train, y_train), (x_test, y_test) = numbered(30), numbered(9)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


@pytest.fixture
def npz(tmp_path):
    """Return a function that writes arrays and loads the file."""

    def load(content: dict, size: int = 4, select: int = 9, run_seed: int = 0, **settings):
        np.savez(tmp_path / "data.npz", **content)
        path = str(tmp_path / "data.npz")
        return build_data({"type": "npz", "path": path, "size": size, "select": select, **settings}, 4, CPU, run_seed)

    return load


def write_images(folder, count: int, sizes=((6, 6),), mode: str = "RGB", suffix: str = "png") -> None:
    """Write images of random pixels, of several sizes in turn."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(count)
    for index in range(count):
        pixels = generator.integers(0, 256, (*reversed(sizes[index % len(sizes)]), 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{index}.{suffix}")


@pytest.fixture
def pictures(tmp_path):
    """Return a folder of two classes, six and two images each."""
    for label in ("cat", "dog"):
        write_images(tmp_path / "train" / label, 6)
        write_images(tmp_path / "test" / label, 2)
    return tmp_path


def folder(path, size: int = 6, select: int = 4, **settings):
    """Return the splits of an image folder."""
    return build_data({"type": "folder", "path": str(path), "size": size, "select": select, **settings}, 4, CPU, 0)


def test_digits_fall_into_splits_of_the_stated_sizes():
    splits = digits(train=500, select=297)
    assert tuple(splits) == NAMES
    assert [len(splits[name]) for name in NAMES] == [500, 297, 1000]
    assert all(len(split.labels) == len(split) and split.classes == 10 for split in splits.values())


def test_splits_are_disjoint_and_together_everything():
    splits = digits(noise=0.1)
    assert len(rows_of(*splits.values())) == 1797


def test_splits_are_stratified():
    splits = digits()
    everything = shares(torch.cat([split.labels for split in splits.values()]))
    for split in splits.values():
        torch.testing.assert_close(shares(split.labels), everything, atol=2 / len(split), rtol=0)


def test_same_seed_gives_the_same_splits_and_another_seed_others():
    one, again, other = digits(noise=0.1, seed=3), digits(noise=0.1, seed=3), digits(noise=0.1, seed=4)
    for name in NAMES:
        assert torch.equal(one[name].images, again[name].images)
        assert torch.equal(one[name].labels, again[name].labels)
        assert not torch.equal(one[name].images, other[name].images)


@pytest.mark.parametrize("seed", [3, -1, 2**63])
def test_seed_of_the_run_draws_splits_and_noise_unless_the_data_have_one(seed):
    of_run, pinned, other = digits(seed, noise=0.1), digits(seed, noise=0.1, seed=4), digits(4, noise=0.1)
    for name in NAMES:
        assert torch.equal(of_run[name].images, digits(0, noise=0.1, seed=seed)[name].images)
        assert torch.equal(pinned[name].images, other[name].images)
        assert not torch.equal(of_run[name].images, other[name].images)


def test_seed_of_the_run_draws_select_and_leaves_test(npz):
    one, other = npz(arrays()), npz(arrays(), run_seed=1)
    assert not torch.equal(one["select"].images, other["select"].images)
    assert torch.equal(one["test"].images, other["test"].images)
    assert torch.equal(one["select"].images, npz(arrays(), run_seed=1, seed=0)["select"].images)


def test_splits_do_not_depend_on_the_global_random_state():
    torch.manual_seed(0)
    one = digits(noise=0.1)
    torch.manual_seed(1)
    assert torch.equal(one["train"].images, digits(noise=0.1)["train"].images)


def test_noise_of_an_image_stays_the_same_in_every_batch_and_split():
    splits = digits(noise=0.3, train=500, select=297)
    rows = torch.tensor([4, 2])
    assert torch.equal(splits["train"].pixels(rows), splits["train"].pixels(rows))
    assert torch.equal(rows_of(*splits.values()), rows_of(*digits(noise=0.3, train=100, select=50).values()))


def test_noise_has_the_stated_size():
    clean, noisy = digits(), digits(noise=0.3)
    difference = noisy["test"].images - clean["test"].images
    assert difference.std().item() == pytest.approx(0.3, rel=0.01)
    assert difference.mean().item() == pytest.approx(0, abs=0.01)
    assert clean["test"].images.min() == 0
    assert clean["test"].images.max() == 1


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"train": 1797}, r"^task\.data\.train: got 1797, expected 1 to 1796, as there are 1797 images\.$"),
        ({"train": 0}, r"^task\.data\.train: got 0, expected 1 to 1796"),
        ({"train": 500, "select": 1297}, r"^task\.data\.select: got 1297, expected 1 to 1296"),
        ({"train": 500, "select": 5}, r"^task\.data\.select: got 5.*the number of classes = 10"),
    ],
)
def test_split_that_cannot_be_made_is_refused(settings, line):
    with pytest.raises(PdiffError, match=line):
        digits(**settings)


@pytest.mark.parametrize("size", [0, -3])
def test_size_below_one_is_refused(tmp_path, size):
    line = rf"^task\.data\.size: got {size}, expected an integer from 1 on\.$"
    with pytest.raises(PdiffError, match=line):
        digits(size=size)
    for part in ("train/cat", "train/dog", "test/cat", "test/dog"):
        write_images(tmp_path / part, 2, sizes=((8, 6),))
    with pytest.raises(PdiffError, match=line):
        folder(tmp_path, size=size, select=2)


def test_unknown_dataset_is_refused_with_those_that_exist():
    line = r"^task\.data\.type: got 'digit'\. Did you mean 'digits'\? Known: digits, folder, npz, torchvision\.$"
    with pytest.raises(PdiffError, match=line):
        build_data({"type": "digit"}, 4, CPU, 0)


def test_unknown_setting_of_a_dataset_is_refused():
    with pytest.raises(PdiffError, match=r"^task\.data: got unknown key 'nois'\. Did you mean 'noise'\?"):
        digits(nois=1)


def test_normalisation_uses_the_moments_of_train_only(npz):
    content = arrays()
    content["x_train"] //= 4
    splits = npz(content)
    train = splits["train"].images.double() / 255
    for split in splits.values():
        torch.testing.assert_close(split.mean.double(), train.mean((0, 2, 3)))
        torch.testing.assert_close(split.std.double(), train.std((0, 2, 3)))
    everything = slice(0, None)
    normalised = splits["train"].pixels(everything)
    torch.testing.assert_close(normalised.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalised.std((0, 2, 3)), torch.ones(3))
    assert splits["test"].pixels(everything).mean() > 2


def test_moments_of_many_images_are_taken_a_few_at_a_time(monkeypatch):
    split, counts, pixels = digits()["train"], [], Split.pixels
    whole = moments(split)
    monkeypatch.setattr(Split, "pixels", lambda data, rows: counts.append(rows) or pixels(data, rows))
    for one, other in zip(moments(split, 7 * 64), whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    assert len(counts) == 2 * -(-len(split) // 7)


def test_bytes_and_fractions_of_the_same_images_are_the_same_pixels():
    images = torch.from_numpy(numbered(5)[0]).permute(0, 3, 1, 2)
    labels = torch.zeros(5, dtype=torch.int64)
    as_bytes, as_floats = (Split(x, labels, 1, 4, 2, CPU) for x in (images, images.float() / 255))
    assert torch.equal(as_bytes.pixels(slice(1, 4)), as_floats.pixels(slice(1, 4)))


@pytest.mark.parametrize("eval_batch", [1, 4, 10, 11])
def test_batches_cover_every_row_once_in_order(eval_batch):
    images = torch.rand(10, 1, 4, 4)
    split = Split(images, torch.arange(10), 10, 4, eval_batch, CPU)
    batches = list(split.batches())
    assert len(batches) == split.num_batches()
    assert torch.cat([torch.arange(10)[rows] for rows, _, _ in batches]).tolist() == list(range(10))
    assert torch.equal(torch.cat([pixels for _, pixels, _ in batches]), images)
    assert torch.cat([labels for _, _, labels in batches]).tolist() == list(range(10))
    assert all(len(labels) <= eval_batch for _, _, labels in batches)


@pytest.mark.parametrize("size", [2, 4, 7])
def test_images_are_resized_only_where_the_size_differs(size):
    split = Split(torch.rand(3, 1, 4, 4), torch.zeros(3, dtype=torch.int64), 1, size, 3, CPU)
    _, resized, _ = next(split.batches())
    assert resized.shape == (3, 1, size, size)
    torch.testing.assert_close(resized.mean((1, 2, 3)), split.images.mean((1, 2, 3)), atol=0.06, rtol=0)
    assert torch.equal(resized, split.images) == (size == 4)


def test_npz_images_come_channels_first_with_their_labels(npz):
    content = arrays()
    splits = npz(content)
    assert [len(splits[name]) for name in NAMES] == [21, 9, 9]
    assert splits["train"].images.shape[1:] == (3, 4, 4)
    assert np.array_equal(splits["test"].images.permute(0, 2, 3, 1).numpy(), content["x_test"])
    assert np.array_equal(splits["test"].labels.numpy(), content["y_test"])
    expected = torch.from_numpy(content["x_train"]).permute(0, 3, 1, 2).flatten(1).unique(dim=0)
    assert torch.equal(rows_of(splits["train"], splits["select"]), expected)


def test_npz_images_without_channels_get_one(npz):
    content = arrays()
    for part in ("x_train", "x_test"):
        content[part] = content[part][..., 0]
    assert npz(content)["train"].images.shape == (21, 1, 4, 4)


def test_images_of_train_can_be_limited(npz):
    splits = npz(arrays(), train=6)
    assert [len(splits[name]) for name in NAMES] == [6, 9, 9]
    assert splits["train"].labels.bincount().tolist() == [2, 2, 2]
    assert torch.equal(splits["select"].images, npz(arrays())["select"].images)
    assert len(npz(arrays(), train=21)["train"]) == 21


def test_more_images_than_there_are_is_refused(npz):
    with pytest.raises(PdiffError, match=r"^task\.data\.select: got 30, expected 1 to 29, as there are 30 images\.$"):
        npz(arrays(), select=30)
    with pytest.raises(PdiffError, match=r"^task\.data\.train: got 22, expected .* as there are 21 images\.$"):
        npz(arrays(), train=22)


def with_strings(content):
    content["y_train"] = np.array(["a"] * 30)


def with_column(content):
    content["y_train"] = content["y_train"][:, None]


def with_fractions(content):
    content["y_test"] = content["y_test"] + 0.5


def without_a_label(content):
    content["y_test"] = content["y_test"][1:]


def with_floats(content):
    content["x_train"] = content["x_train"] / 255


def without_height(content):
    content["x_train"] = content["x_train"][:, 0, 0]


def with_other_keys(content):
    content["images"] = content.pop("x_test")


def with_objects(content):
    content["y_train"] = np.array([{}] * 30, dtype=object)


def with_channels_first(content):
    content["x_train"] = np.zeros((30, 3, 8, 8), np.uint8)


def with_grey_test_images(content):
    content["x_test"] = content["x_test"][..., :1]


def with_a_negative_label(content):
    content["y_train"] = content["y_train"] - 1


def with_a_new_label(content):
    content["y_test"][0] = 5


def without_test_images(content):
    content["x_test"], content["y_test"] = content["x_test"][:0], content["y_test"][:0]


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (with_other_keys, r"^task\.data\.path: .*data\.npz cannot be used \(.*x_test.*\), expected arrays x_train"),
        (with_objects, r"^task\.data\.path: .*data\.npz cannot be used \(Object arrays cannot be loaded.*without pic"),
        (with_floats, r"^task\.data: got images float64 \(30, 4, 4, 3\) and labels int64 \(30,\), expected uint8"),
        (without_height, r"^task\.data: got images uint8 \(30, 3\) and .* expected uint8 \(S, H, W, C\)"),
        (without_a_label, r"^task\.data: got images uint8 \(9, 4, 4, 3\) and labels int64 \(8,\), .* label each\.$"),
        (with_column, r"^task\.data: got .*labels int64 \(30, 1\).* one integer label each\.$"),
        (with_fractions, r"^task\.data: got .*labels float64 \(9,\).* one integer label each\.$"),
        (with_channels_first, r"^task\.data: got images \(30, 3, 8, 8\), expected \(S, H, W, C\)\."),
        (with_grey_test_images, r"^task\.data: got 1 channels of the test images, expected 3 as in training\."),
        (with_a_negative_label, r"^task\.data: got the label -1 of a training image, expected 0 or more\."),
        (with_a_new_label, r"^task\.data: got test images with the labels 5, which no training image has\."),
        (without_test_images, r"^task\.data: got no test image, expected some\."),
        (with_strings, r"^task\.data: got .*labels <U1 \(30,\).* one integer label each\.$"),
    ],
)
def test_npz_that_does_not_fit_is_refused_in_one_line(npz, spoil, line):
    content = arrays()
    spoil(content)
    with pytest.raises(PdiffError, match=line) as caught:
        npz(content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"no archive", b"PK\x03\x04 cut off", b"\x93NUMPY"])
def test_file_that_is_no_npz_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "data.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PdiffError, match=r"^task\.data\.path: .*data\.npz cannot be used") as caught:
        build_data({"type": "npz", "path": str(path), "size": 4, "select": 9}, 4, CPU, 0)
    assert "\n" not in str(caught.value)


def test_single_array_is_no_npz(tmp_path):
    np.save(tmp_path / "data.npy", np.zeros(3))
    with pytest.raises(PdiffError, match=r"^task\.data\.path: .*data\.npy cannot be used"):
        build_data({"type": "npz", "path": str(tmp_path / "data.npy"), "size": 4, "select": 9}, 4, CPU, 0)


def test_class_of_a_single_image_is_refused(npz):
    content = arrays()
    content["y_train"][0] = 7
    with pytest.raises(PdiffError, match=r"^task\.data\.select: got 9.*least populated class"):
        npz(content)


def test_folder_gives_images_with_the_place_of_their_class_as_label(pictures):
    splits = folder(pictures)
    assert [len(splits[name]) for name in NAMES] == [8, 4, 4]
    assert splits["test"].classes == 2
    assert splits["test"].labels.tolist() == [0, 0, 1, 1]
    written = np.array(Image.open(pictures / "test" / "dog" / "1.png"))
    assert np.array_equal(splits["test"].images[3].permute(1, 2, 0).numpy(), written)


def test_folder_may_call_its_test_part_val(pictures):
    (pictures / "test").rename(pictures / "val")
    assert len(folder(pictures)["test"]) == 4


def test_images_of_one_size_keep_it(pictures):
    splits = folder(pictures, size=12)
    assert splits["train"].images.shape == (8, 3, 6, 6)
    assert next(splits["train"].batches())[1].shape == (4, 3, 12, 12)


def test_images_of_many_sizes_and_modes_are_cropped_at_the_centre(pictures):
    write_images(pictures / "train" / "fox", 4, sizes=((9, 5), (5, 9)), mode="L")
    write_images(pictures / "test" / "fox", 4, sizes=((9, 5), (5, 9)), mode="P")
    pixels = np.zeros((8, 24, 3), dtype=np.uint8)
    pixels[:, 8:16] = 255
    Image.fromarray(pixels).save(pictures / "test" / "fox" / "0.png")
    splits = folder(pictures, size=8)
    assert {split.images.shape[1:] for split in splits.values()} == {(3, 8, 8)}
    assert splits["test"].images[4].min() == 255


def test_oblong_images_of_one_size_are_cropped_too(tmp_path):
    for part in ("train", "test"):
        for label in ("cat", "dog"):
            write_images(tmp_path / part / label, 4, sizes=((12, 6),))
    split = folder(tmp_path, size=6)["test"]
    written = np.array(Image.open(tmp_path / "test" / "cat" / "0.png"))
    assert np.array_equal(split.images[0].permute(1, 2, 0).numpy(), written[:, 3:9])


@pytest.mark.parametrize("part", ["train", "test"])
def test_folder_without_its_parts_is_refused(pictures, part):
    (pictures / part).rename(pictures / "other")
    with pytest.raises(PdiffError, match=r"^task\.data\.path: got '.*', expected a folder with train/ and test/"):
        folder(pictures)


def test_class_folder_without_images_is_refused_by_name(pictures):
    (pictures / "train" / "empty").mkdir()
    with pytest.raises(PdiffError, match=r"^task\.data\.path: the class folders without an image in .*/train are e"):
        folder(pictures)


def test_every_image_that_is_damaged_is_named(pictures):
    for number in range(6):
        (pictures / "train" / "dog" / f"{number}.png").write_bytes(b"")
    with pytest.raises(PdiffError, match=r"dog/0\.png: .* Others with problems: .*dog/1\.png, .* and 2 more\.$"):
        folder(pictures)


@pytest.mark.parametrize("length", [0, 20, 100])
def test_image_that_is_damaged_is_refused_by_name(pictures, length):
    path = pictures / "train" / "dog" / "0.png"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(PdiffError, match=r"^.*dog/0\.png: cannot be read as an image \(.+\)\. Mend it, or"):
        folder(pictures)


def test_parts_with_other_classes_are_refused(pictures):
    (pictures / "test" / "cat").rename(pictures / "test" / "eel")
    with pytest.raises(PdiffError, match=r"^task\.data\.path: got the classes cat in train/ alone and eel in test/ a"):
        folder(pictures)


def paint(path, value: int, size=(6, 6)) -> None:
    """Write an image of one grey value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)


@pytest.fixture
def numbers(tmp_path):
    """Return a folder of the classes 0, 1, 2, 10 and 11, each of its own brightness, ten times its number."""
    for part, count in (("train", 3), ("test", 1)):
        for name in ("0", "1", "2", "10", "11"):
            for index in range(count):
                paint(tmp_path / part / name / f"{index}.png", 10 * int(name) + index)
    return tmp_path


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("name", ["0", "1", "10", "11", "2"]),
        ("number", ["0", "1", "2", "10", "11"]),
        ([11, 10, 2, 1, 0], ["11", "10", "2", "1", "0"]),
    ],
)
def test_class_folders_are_labels_in_the_order_asked_for(numbers, caplog, order, names):
    split = folder(numbers, select=5, order=order)["test"]
    assert split.names == names
    brightness = dict(zip(split.labels.tolist(), split.images[:, 0, 0, 0].tolist(), strict=True))
    assert [brightness[label] for label in range(5)] == [10 * int(name) for name in names]
    assert f"the labels 0, 1, 2, ... are the classes {', '.join(names)}" in caplog.text


def test_folder_without_anything_unusual_is_read_without_a_word(pictures, caplog):
    assert folder(pictures)["train"].names == ["cat", "dog"]
    assert caplog.text == ""


@pytest.mark.parametrize(("side", "size", "kept"), [(256, 8, 256), (257, 8, 8), (300, 150, 300), (302, 150, 150)])
def test_large_squares_of_one_size_are_made_small_too(tmp_path, side, size, kept):
    for part, count in (("train", 2), ("test", 1)):
        for label in ("cat", "dog"):
            write_images(tmp_path / part / label, count, sizes=((side, side),))
    assert folder(tmp_path, size=size, select=2)["test"].images.shape == (2, 3, kept, kept)


def test_photographs_of_many_sizes_are_made_small_one_by_one(tmp_path, monkeypatch):
    from pdiff_plugins.images import data

    for part in ("train", "test"):
        for label in ("cat", "dog"):
            write_images(tmp_path / part / label, 4, sizes=((40, 30), (30, 40), (32, 32), (50, 50)))
    given = []
    monkeypatch.setattr(data.torch, "stack", lambda images, stack=torch.stack: given.append(images) or stack(images))
    folder(tmp_path, size=8)
    assert {image.shape for images in given for image in images} == {(3, 8, 8)}


def write_idx(path, values: np.ndarray) -> None:
    """Write bytes in the format of MNIST."""
    path.write_bytes(struct.pack(f">{1 + values.ndim}i", 0x800 + values.ndim, *values.shape) + values.tobytes())


@pytest.fixture
def mnist(tmp_path):
    """Return a folder with a tiny MNIST, and its test images."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 40), ("t10k", 20)):
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(raw / f"{part}-images-idx3-ubyte", images)
        write_idx(raw / f"{part}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8))
    return tmp_path, images


def torchvision(name: str, root, **settings):
    """Return the splits of a torchvision dataset."""
    section = {"type": "torchvision", "name": name, "root": str(root), "size": 28, "select": 10, **settings}
    return build_data(section, 4, CPU, 0)


def test_torchvision_dataset_is_read_from_its_files(mnist):
    root, images = mnist
    splits = torchvision("MNIST", root, train=20)
    assert [len(splits[name]) for name in NAMES] == [20, 10, 20]
    assert np.array_equal(splits["test"].images[:, 0].numpy(), images)
    assert splits["test"].labels.tolist() == [*range(10), *range(10)]
    assert splits["select"].labels.sort().values.tolist() == list(range(10))


@pytest.mark.parametrize("name", ["MNIST", "CIFAR100", "STL10", "Flowers102", "OxfordIIITPet", "SVHN"])
def test_torchvision_dataset_that_is_not_there_is_refused_when_it_may_not_be_fetched(tmp_path, name):
    with pytest.raises(PdiffError, match=rf"^task\.data: torchvision's {name} cannot be loaded from .*download"):
        torchvision(name, tmp_path)


@pytest.mark.parametrize("name", ["FakeData", "ImageFolder", "EMNIST", "ImageNet", "VOCDetection", "Kinetics"])
def test_torchvision_dataset_of_another_shape_is_refused(tmp_path, name):
    with pytest.raises(PdiffError, match=rf"^task\.data: torchvision's {name} cannot be loaded from "):
        torchvision(name, tmp_path)


def test_unknown_torchvision_dataset_is_refused_with_the_closest():
    with pytest.raises(PdiffError, match=r"^task\.data\.name: got 'CIFAR1000'\. Did you mean 'CIFAR100'\?"):
        torchvision("CIFAR1000", "data")


def test_images_of_some_classes_are_taken_in_their_order():
    split = digits(train=100)["train"]
    rows = split.rows_of([7, 2])
    few = split.take(rows)
    assert set(few.labels.tolist()) == {2, 7}
    assert rows.tolist() == [row for row, label in enumerate(split.labels.tolist()) if label in (2, 7)]
    assert torch.equal(few.images[0], split.images[rows[0]])
    assert len(split) == 100


def test_only_some_digits_are_kept_each_under_its_place_among_them():
    splits = digits(train=100, select=60, classes=[7, 2, 4])
    assert {name: len(split) for name, split in splits.items()}["train"] == 100
    assert splits["test"].names == ["7", "2", "4"]
    assert splits["test"].classes == 3
    whole = digits(train=1000, select=400)
    known = {
        image.numpy().tobytes(): label
        for split in whole.values()
        for image, label in zip(split.images, split.labels.tolist(), strict=True)
    }
    few = splits["test"]
    assert [known[image.numpy().tobytes()] for image in few.images] == [[7, 2, 4][label] for label in few.labels]


def test_only_some_classes_of_an_npz_are_kept(npz):
    splits = npz(arrays(), select=4, classes=[2, 0])
    assert splits["test"].names == ["2", "0"]
    assert torch.equal(splits["test"].labels, torch.tensor([1, 0] * 3))
    kept = torch.from_numpy(arrays()["x_test"]).permute(0, 3, 1, 2)[[0, 2, 3, 5, 6, 8]]
    assert torch.equal(splits["test"].images, kept)
    assert len(splits["train"]) == 20 - 4
    with pytest.raises(PdiffError, match=r"^task\.data\.classes: got \[3\], expected different labels of 0 to 2, one"):
        npz(arrays(), classes=[3])


def test_only_some_classes_of_a_torchvision_dataset_are_kept(mnist):
    splits = torchvision("MNIST", mnist[0], select=2, classes=[9, 1])
    assert splits["test"].labels.tolist() == [1, 0, 1, 0]
    assert (len(splits["train"]), splits["train"].names) == (6, ["9", "1"])


@pytest.mark.parametrize("classes", [[], [3, 3], [3, 10], [-1, 2]])
def test_digits_that_there_are_not_are_refused(classes):
    with pytest.raises(PdiffError, match=r"^task\.data\.classes: got \[.*\], expected different labels of 0 to 9, one"):
        digits(classes=classes)
