"""Collection: base training, branches and seeds of fine-tuning, and the way back into an interrupted one."""

import itertools

import pytest
import torch
from pdiff_plugins.images.classify import classify
from pdiff_plugins.images.collection import epoch_rows, snapshots, train_base
from torch import nn
from torch.nn.functional import cross_entropy

from pdiff import Metric, Task
from pdiff.run.config import resolve
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.packing import unpack
from pdiff.runtime.seeding import derive_seed, isolated_seed
from pdiff.task.plugins import load_plugin

HOOK = load_plugin("classification").hook
NOISE = [{"type": "noise", "std": 0.2}]


@pytest.fixture
def config(tiny) -> dict:
    """A config of 2 epochs of 3 steps, and 4 steps of fine-tuning, 2 an epoch."""
    tiny["device"] = "cpu"
    tiny["task"]["data"].update(size=16, train=48)
    tiny["collect"] = {
        "train": {"epochs": 2, "batch_size": 16, "augment": NOISE},
        "finetune": {"steps": 4, "batch_size": 24, "augment": NOISE},
    }
    return tiny


def copies(tensors) -> dict[str, torch.Tensor]:
    """Return copies that further training does not change."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


class Collection:
    """All snapshots of a collection, and the network before the first of them, at the first one and at the end.

    Args:
        config: the values of the config.
        state: that of the snapshot to go on from.
        base: what a resumed run finds in its file of the frozen network.
        part: of the collection; None for all of it.
    """

    def __init__(self, config: dict, state=None, base=None, part=None):
        cfg = resolve(config)
        self.task = HOOK.build(cfg=cfg, folder=None)
        if base is not None:
            self.task.model.load_state_dict(base)
        self.names = HOOK.select_params(task=self.task, cfg=cfg)
        self.base = base
        self.snapshots = []
        given = {"task": self.task, "names": self.names, "cfg": cfg, "folder": None}
        for snapshot in HOOK.collect(**given, state=state, branch=part):
            if snapshot.params and self.base is None:
                self.base = copies(self.task.model.state_dict())
            self.snapshots.append(snapshot)
        self.end = copies(self.task.model.state_dict())

    def rows(self, branch: int = 0, seed: int = 0) -> list[dict]:
        """Return the selections of one branch of one seed."""
        origin = {"branch": branch, "network": seed}
        return [s.params for s in self.snapshots if s.params and origin.items() <= s.provenance.items()]

    def changed(self) -> set[str]:
        """Return what differs between the frozen network and the network at the end."""
        return {name for name, tensor in self.end.items() if not torch.equal(tensor, self.base[name])}


def base_in(state) -> dict[str, torch.Tensor]:
    """Return the trained selection inside a state of the fine-tuning."""
    return unpack(state)["base"]


def equal(one, other) -> bool:
    """Say whether two sets of named tensors are the same, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_snapshot_per_step_follows_a_rest_per_epoch(config):
    collection = Collection(config)
    assert [bool(s.params) for s in collection.snapshots] == [False] * 2 + [True] * 4
    assert all(s.state for s in collection.snapshots)
    assert [s.provenance["step"] for s in collection.snapshots[2:]] == [1, 2, 3, 4]
    for snapshot in collection.snapshots[2:]:
        assert snapshot.provenance["loss"] > 0
        assert 0 <= snapshot.provenance["accuracy"] <= 1
        assert list(snapshot.params) == collection.names


@pytest.mark.parametrize(
    ("select", "seeds", "branches", "networks"),
    [("last_norms(2)", 1, 3, [0, 0, 0]), ("all+buffers", 2, 2, [0, 0, 1, 1]), ("all+buffers", 3, 1, [0, 1, 2])],
)
def test_parts_yield_together_what_the_whole_yields(config, select, seeds, branches, networks):
    config["collect"].update(seeds=seeds, branches=branches)
    config["select"] = select
    whole, states = Collection(config), {}
    assert list(HOOK.branches(cfg=resolve(config))) == networks
    for part, network in enumerate(networks):
        state = states.get(network)
        own = Collection(config, state, whole.base if state else None, part)
        rows = own.rows(part % branches, network)
        assert len(rows) == len([s for s in own.snapshots if s.params]) == 4
        assert all(equal(a, b) for a, b in zip(rows, whole.rows(part % branches, network), strict=True))
        states[network] = own.snapshots[-1].state


@pytest.mark.parametrize("select", ["last_norms(2)", "head", "regex(conv1)", "all"])
def test_only_the_selection_changes(config, select):
    collection = Collection({**config, "select": select})
    assert collection.changed() == set(collection.names)


def test_snapshots_are_copies_that_all_differ(config):
    collection = Collection(config)
    rows = collection.rows()
    assert len({tuple(row[collection.names[0]].tolist()) for row in rows}) == 4
    assert equal(rows[-1], {name: collection.end[name] for name in collection.names})
    assert not any(tensor.requires_grad for row in rows for tensor in row.values())


def test_same_config_gives_the_same_snapshots_and_another_seed_others(config):
    one, again, other = Collection(config), Collection(config), Collection({**config, "seed": 1})
    assert all(equal(a, b) for a, b in zip(one.rows(), again.rows(), strict=True))
    assert not equal(one.rows()[-1], other.rows()[-1])


def test_collection_does_not_depend_on_the_global_random_state(config):
    torch.manual_seed(1)
    one = Collection(config)
    torch.manual_seed(2)
    torch.rand(7)
    assert equal(one.end, Collection(config).end)


def test_mode_eval_leaves_running_statistics(config):
    collection = Collection({**config, "select": "norms"})
    assert not [name for name in collection.changed() if "running" in name or "tracked" in name]


def test_mode_train_without_buffers_is_refused_with_the_name_of_the_tensor(config):
    config["collect"]["finetune"]["mode"] = "train"
    line = (
        r"^collect\.finetune\.mode: got 'train', which changes layer\d\.0\.bn\d\.running_mean, which is not selected\. "
        r"Add \+buffers to the selector or use mode eval\.$"
    )
    with pytest.raises(PdiffError, match=line):
        Collection(config)


def test_mode_train_with_buffers_updates_those_of_the_selected_layers(config):
    config["collect"]["finetune"]["mode"] = "train"
    collection = Collection({**config, "select": "last_norms(2)+buffers"})
    assert collection.changed() == set(collection.names)
    means = [name for name in collection.names if name.endswith("running_mean")]
    counts = [name for name in collection.names if name.endswith("num_batches_tracked")]
    assert len(means) == len(counts) == 2
    rows = collection.rows()
    assert all(not torch.equal(a[name], b[name]) for a, b in itertools.pairwise(rows) for name in means)
    assert [row[counts[0]].item() for row in rows] == [7, 8, 9, 10]


def test_mode_train_leaves_layers_inside_a_selected_one_in_eval_mode():
    task = small_task(Gated())
    rest, *collected = collect_small(task, ["gate"], mode="train")
    assert task.model.training
    assert not task.model.layers[1].training
    assert len(collected) == 3
    trained = unpack(rest.state)["model"]
    changed = {name for name, tensor in task.model.state_dict().items() if not torch.equal(tensor, trained[name])}
    assert changed == {"gate"}


def test_mode_train_names_a_buffer_of_the_network_itself():
    model = Gated()
    model.register_buffer("count", torch.zeros(1))
    with pytest.raises(PdiffError, match=r"^collect\.finetune\.mode: got 'train', which changes count, which is not"):
        list(collect_small(small_task(model), ["gate"], mode="train"))
    assert list(collect_small(small_task(model), ["gate", "count"], mode="train"))


def test_mode_train_allows_buffers_that_no_checkpoint_holds():
    model = Gated()
    model.register_buffer("index", torch.zeros(1), persistent=False)
    assert list(collect_small(small_task(model), ["gate"], mode="train"))


def test_unknown_mode_is_refused(config):
    config["collect"]["finetune"]["mode"] = "evaluate"
    with pytest.raises(PdiffError, match=r"^collect\.finetune\.mode: got 'evaluate'\. .*Known: eval, train\.$"):
        Collection(config)


def test_every_leaves_out_the_steps_between_and_changes_none(config):
    every_step = Collection(config).rows()
    config["collect"]["finetune"]["every"] = 2
    collection = Collection(config)
    assert [s.provenance["step"] for s in collection.snapshots if s.params] == [2, 4]
    assert all(equal(a, b) for a, b in zip(collection.rows(), every_step[1::2], strict=True))


def test_warmup_leaves_out_the_first_steps_of_every_branch_and_changes_none(config):
    config["collect"]["branches"] = 2
    config["collect"]["finetune"]["steps"] = 7
    every_step = Collection(config)
    config["collect"]["finetune"].update(warmup=3, steps=4, every=2)
    collection = Collection(config)
    assert [s.provenance["step"] for s in collection.snapshots if s.params] == [5, 7, 5, 7]
    for branch in range(2):
        expected = every_step.rows(branch)[4::2]
        assert all(equal(a, b) for a, b in zip(collection.rows(branch), expected, strict=True))


def test_warmup_below_nothing_is_refused(config):
    config["collect"]["finetune"]["warmup"] = -1
    with pytest.raises(PdiffError, match=r"^collect\.finetune\.warmup: got -1, expected an integer from 0 on\.$"):
        Collection(config)


def test_branches_start_from_the_same_network_and_differ(config):
    config["collect"]["branches"] = 3
    config["collect"]["finetune"].update(lr=1e-6, steps=2)
    collection = Collection(config)
    first = [collection.rows(branch)[0] for branch in range(3)]
    assert [len(collection.rows(branch)) for branch in range(3)] == [2, 2, 2]
    for name in collection.names:
        # The first step of AdamW is at most the learning rate (and the decay) long, wherever the gradient points.
        for row in first[1:]:
            torch.testing.assert_close(row[name], first[0][name], atol=2.5e-6, rtol=0)
    assert not equal(first[0], first[1])
    assert not equal(first[1], first[2])


def test_first_branch_does_not_depend_on_the_number_of_branches(config):
    alone = Collection(config).rows()
    config["collect"]["branches"] = 2
    assert all(equal(a, b) for a, b in zip(alone, Collection(config).rows(0), strict=True))


def whole(config: dict, **collect) -> dict:
    """Return the config with a network without running statistics, all of it selected."""
    config["task"]["network"] = {"type": "mlp_mini"}
    config["task"]["data"]["size"] = 64
    config["collect"].update(collect)
    return {**config, "select": "all"}


def test_seeds_have_different_initial_weights_and_different_snapshots(config):
    config["collect"]["train"]["epochs"] = 0
    config["collect"]["finetune"].update(lr=1e-6, steps=1)
    collection = Collection(whole(config, seeds=3))
    weights = torch.stack([collection.rows(seed=number)[0]["features.0.weight"].flatten() for number in range(3)])
    assert torch.corrcoef(weights).triu(1).abs().max() < 0.05
    biases = [collection.rows(seed=number)[0]["features.0.bias"] for number in range(3)]
    assert not torch.equal(biases[0], biases[1])


def test_first_seed_is_the_network_that_build_made(config):
    config["collect"]["train"]["epochs"] = 0
    config = whole(config, seeds=2)
    built = HOOK.build(cfg=resolve(config), folder=None).model.state_dict()
    assert equal(base_in(Collection(config).snapshots[0].state), built)


def test_seeds_with_something_left_out_are_refused_by_its_name(config):
    config["collect"]["seeds"] = 2
    with pytest.raises(PdiffError, match=r"^collect\.seeds: got 2, expected 1, .* another 'conv1\.0\.weight', .*all\+"):
        Collection(config)


def test_seeds_with_running_statistics_left_out_are_refused_before_any_training(config):
    config["collect"]["seeds"] = 2
    line = r"^collect\.seeds: got 2, expected 1, .* another 'conv1\.1\.running_mean', .*select all\+buffers"
    with pytest.raises(PdiffError, match=line):
        Collection({**config, "select": "all"})


def test_seeds_with_running_statistics_selected_are_collected(config):
    config["collect"]["seeds"] = 2
    collection = Collection({**config, "select": "all+buffers"})
    means = [collection.rows(seed=number)[0]["bn1.running_mean"] for number in range(2)]
    assert not torch.equal(*means)
    assert collection.changed() <= set(collection.names)


def test_key_that_a_stage_of_the_collection_lacks_is_refused_where_it_stands(config):
    config["collect"]["train"]["epoch"] = 1
    with pytest.raises(PdiffError, match=r"^collect\.train: got unknown key 'epoch'\. Did you mean 'epochs'\?"):
        Collection(config)
    del config["collect"]["train"]["epoch"]
    config["collect"]["finetune"]["step"] = 1
    with pytest.raises(PdiffError, match=r"^collect\.finetune: got unknown key 'step'\. Did you mean 'steps'\?"):
        Collection(config)


def test_unknown_augmentation_is_refused_where_it_stands(config):
    config["collect"]["finetune"]["augment"] = [{"type": "flop"}]
    with pytest.raises(PdiffError, match=r"^collect\.finetune\.augment\.type: got 'flop'"):
        Collection(config)


def part(config: dict) -> dict:
    """Return a config of a partial selection with two branches."""
    config["collect"]["branches"] = 2
    return config


def statistics(config: dict) -> dict:
    """Return a config whose selection has running statistics that are trained."""
    config["collect"]["branches"] = 2
    config["collect"]["finetune"]["mode"] = "train"
    return {**config, "select": "last_norms(2)+buffers"}


def seeds(config: dict) -> dict:
    """Return a config of a whole network with two seeds of two branches."""
    return whole(config, seeds=2, branches=2)


def seeds_with_statistics(config: dict) -> dict:
    """Return a config of two seeds of a whole network with running statistics, every second step kept."""
    config["collect"]["seeds"] = 2
    config["collect"]["finetune"].update(mode="train", every=2)
    return {**config, "select": "all+buffers"}


def warmed_up(config: dict) -> dict:
    """Return a config of two branches that begin with a warm-up."""
    config["collect"]["finetune"]["warmup"] = 3
    return part(config)


@pytest.mark.parametrize("kind", [part, statistics, seeds, seeds_with_statistics, warmed_up])
def test_collection_that_goes_on_from_any_snapshot_yields_the_same_as_without_interruption(config, kind):
    config = kind(config)
    through = Collection(config)
    states = [copies(snapshot.state) for snapshot in through.snapshots]
    for k, state in enumerate(states):
        reached = any(snapshot.params for snapshot in through.snapshots[: k + 1])
        resumed = Collection(config, copies(state), through.base if reached else None)
        rest = through.snapshots[k + 1 :]
        assert [s.provenance for s in resumed.snapshots] == [s.provenance for s in rest]
        assert all(equal(a.params, b.params) for a, b in zip(resumed.snapshots, rest, strict=True))
        assert all(equal(a.state, b.state) for a, b in zip(resumed.snapshots, rest, strict=True))
        assert not rest or equal(resumed.end, through.end)


@pytest.mark.parametrize("k", [0, 3])
def test_state_that_a_collection_goes_on_from_is_left_as_it_is(config, k):
    through = Collection(config)
    state = copies(through.snapshots[k].state)
    Collection(config, state, through.base)
    assert equal(state, through.snapshots[k].state)


class Gated(nn.Module):
    """A network with a parameter of its own and a normalisation inside."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Parameter(torch.ones(4))
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        return self.head(self.layers(x).mean((2, 3)) * self.gate)


def small_task(model: nn.Module) -> Task:
    """Return the digits with another network."""
    from pdiff_plugins.images.data import build_data

    data = {"type": "digits", "size": 8, "train": 48, "select": 64}
    return Task(model=model, splits=build_data(data, 64, torch.device("cpu"), 0), metric=Metric("accuracy"))


def collect_small(task: Task, names: list[str], epochs: int = 1, **finetune):
    """Yield the snapshots of a network that is built here."""
    initial = copies(task.model.state_dict())

    def network(number: int) -> nn.Module:
        task.model.load_state_dict(initial)
        return task.model

    train, finetune = {"epochs": epochs, "batch_size": 16}, {"steps": 3, "batch_size": 24, **finetune}
    return snapshots(task, names, 0, network, classify, None, train, finetune)


def frozen_by_torchvision() -> nn.Module:
    """Return a network with torchvision's frozen batch normalisation."""
    from torchvision.ops import FrozenBatchNorm2d

    return nn.Sequential(nn.Conv2d(1, 4, 3), FrozenBatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))


def frozen_by_timm() -> nn.Module:
    """Return a network whose batch normalisation timm froze."""
    from timm.layers import freeze_batch_norm_2d

    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)
    return freeze_batch_norm_2d(nn.Sequential(*layers))


@pytest.mark.parametrize("network", [frozen_by_torchvision, frozen_by_timm])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_affine_buffers_of_a_frozen_normalisation_are_finetuned_when_selected(network, mode):
    with isolated_seed(0):
        task = small_task(network())
    names = ["1.weight", "1.bias"]
    assert set(names) <= {name for name, _ in task.model.named_buffers()}
    collected = [s for s in collect_small(task, names, mode=mode) if s.params]
    assert not equal(collected[0].params, collected[-1].params)
    base = base_in(collected[0].state)
    assert equal(base, {"1.weight": torch.ones(4), "1.bias": torch.zeros(4)})
    # One step of AdamW at 3e-2 moves a value by 3e-2 where the decay is next to nothing.
    moved = (collected[0].params["1.weight"] - base["1.weight"]).abs()
    torch.testing.assert_close(moved, torch.full((4,), 3e-2), atol=1e-3, rtol=0)


def test_base_training_is_adamw_whose_rate_falls_to_zero_by_a_cosine():
    with isolated_seed(0):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    task = small_task(model)
    initial, data = copies(model.state_dict()), task.splits["train"]
    epochs, steps = 4, 3
    trained = list(train_base(task, 7, 0, classify, None, epochs, batch_size=16, lr=1e-2, weight_decay=0.1))
    assert [unpack(snapshot.state)["epoch"] for snapshot in trained] == [1, 2, 3, 4]
    result = copies(model.state_dict())

    model.load_state_dict(initial)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps, eta_min=0)
    for epoch in range(epochs):
        for rows in epoch_rows(len(data), 16, derive_seed(7, "train", 0, epoch)):
            optimizer.zero_grad()
            cross_entropy(model(data.pixels(rows)), data.labels[rows]).backward()
            optimizer.step()
            schedule.step()
    assert schedule.get_last_lr() == pytest.approx([0])
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(result[name], tensor)


def test_base_training_of_no_epochs_keeps_the_network():
    task = small_task(Gated())
    initial = copies(task.model.state_dict())
    assert list(train_base(task, 0, 0, classify, None, epochs=0)) == []
    assert equal(initial, task.model.state_dict())


def test_an_epoch_takes_every_row_once_in_an_order_of_its_own():
    epochs = [epoch_rows(10, 4, seed) for seed in (0, 0, 1)]
    assert [len(rows) for rows in epochs[0]] == [4, 4, 2]
    assert sorted(torch.cat(epochs[0]).tolist()) == list(range(10))
    assert torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1]))
    assert not torch.equal(torch.cat(epochs[0]), torch.cat(epochs[2]))


@pytest.mark.parametrize("key", ["steps", "batch_size", "every"])
def test_settings_below_one_are_refused(tiny, key):
    tiny["collect"]["finetune"][key] = 0
    config = resolve(tiny)
    hook = load_plugin("classification").hook
    task = hook.build(cfg=config, folder=None)
    names = hook.select_params(task=task, cfg=config)
    with pytest.raises(PdiffError, match=rf"collect.finetune.{key}: got 0, expected an integer from 1 on"):
        list(hook.collect(task=task, names=names, cfg=config, state=None, folder=None, branch=None))
