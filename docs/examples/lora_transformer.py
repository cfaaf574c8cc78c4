"""LoRA adapters of a small vision transformer: it has learnt upright digits, and adapts to digits on their side.

Shows a network of another library in its own format: names of the adapters by `select_params`, peft's own loading in
`load_params`, an export that peft reads, facts beside the metric, and what a plugin requires.
"""

import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

from pdiff import Evaluation, Metric, Replay, Snapshot, Task, call, hookimpl, resolve_device

REQUIRES = ("peft", "transformers")
BOUNDS = {"train": (0, 500), "select": (500, 797), "test": (797, 1797)}


def build_network(rank, width, depth):
    """Return a transformer with random weights, and adapters, which change nothing yet, on all its linear layers."""
    from peft import LoraConfig, get_peft_model
    from transformers import ViTConfig, ViTForImageClassification

    images = {"image_size": 8, "patch_size": 2, "num_channels": 1, "num_labels": 10}
    sizes = {"hidden_size": width, "num_hidden_layers": depth, "intermediate_size": 2 * width}
    network = ViTForImageClassification(ViTConfig(num_attention_heads=4, **images, **sizes))
    return get_peft_model(network, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"))


@hookimpl
def build(cfg):
    """Build network and data from `cfg.task`."""
    return call(build_task, cfg.task, "task", seed=cfg.seed, device=resolve_device(cfg.device))


def build_task(seed, device, rank: int = 2, width: int = 32, depth: int = 2, noise: float = 0.1):
    """Return the task; `train` holds the digits both upright, for the base, and on their side."""
    rng = torch.Generator().manual_seed(0)
    images, labels = map(torch.tensor, load_digits(return_X_y=True))
    order = torch.randperm(len(labels), generator=rng)
    x = images.reshape(-1, 1, 8, 8).float()[order] / 16
    x, y = (x + noise * torch.randn(x.shape, generator=rng)).to(device), labels[order].to(device)
    splits = {name: (x[slice(*rows)].rot90(1, (2, 3)), y[slice(*rows)]) for name, rows in BOUNDS.items()}
    splits["upright"] = (x[slice(*BOUNDS["train"])], y[slice(*BOUNDS["train"])])
    torch.manual_seed(seed)
    model = build_network(rank, width, depth).to(device)
    facts = {"adapters": f"LoRA, rank {rank}, on all linear layers", "data": "digits turned by 90 degrees"}
    return Task(model, splits, Metric("accuracy", chance=0.1), export=save_adapters, facts=facts)


def save_adapters(model, path):
    """Write the adapters as the folder that `peft.PeftModel.from_pretrained` reads."""
    model.save_pretrained(path)


@hookimpl
def select_params(task):
    """Select the adapters."""
    return [name for name in task.model.state_dict() if "lora_" in name]


@hookimpl
def load_params(model, params):
    """Put adapters into the network as peft does, which leaves the adapter's name, `default`, out of the tensors'."""
    from peft import set_peft_model_state_dict

    found = set_peft_model_state_dict(model, {name.replace(".default", ""): value for name, value in params.items()})
    assert not found.unexpected_keys


@hookimpl
def collect(task, names, cfg):
    """Train the base on upright digits, then the adapters on those on their side (`cfg.collect`)."""
    return call(snapshots, cfg.collect, "collect", task=task, names=names, seed=cfg.seed)


def snapshots(task, names, seed, base: int, warmup: int, steps: int, batch_size: int = 32, lr: float = 5e-3):
    """Yield the adapters after each of the last `steps` steps; `warmup` steps of them come before."""
    torch.manual_seed(seed)
    model = task.model.train()
    adapters = [model.get_parameter(name) for name in names]
    frozen = [parameter.requires_grad_() for name, parameter in model.named_parameters() if name not in names]
    optimizer = torch.optim.AdamW(frozen, lr=3e-3)
    for _ in range(base):
        train(model, optimizer, task.splits["upright"], batch_size)
    model.requires_grad_(False)
    optimizer = torch.optim.AdamW([adapter.requires_grad_() for adapter in adapters], lr=lr)
    for step in range(warmup + steps):
        loss = train(model, optimizer, task.splits["train"], batch_size)
        if step >= warmup:
            yield Snapshot.of(model, names, {"step": step, "loss": loss.item()})


def train(model, optimizer, data, batch_size):
    """Take one step, and return its loss."""
    x, y = data
    rows = torch.randint(len(x), (batch_size,), device=x.device)
    loss = cross_entropy(model(pixel_values=x[rows]).logits, y[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


@hookimpl
def evaluate(task, candidates, split):
    """Measure each candidate's accuracy."""
    x, y = task.splits[split]
    model = task.model.eval()
    for logits in Replay(model, candidates, forward=lambda pixels: model(pixel_values=pixels).logits)(x):
        wrong = (logits.argmax(1) != y).cpu()
        yield Evaluation(1 - wrong.double().mean().item(), signature=wrong, scores=~wrong)
