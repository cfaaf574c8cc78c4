"""A made-up run: twelve sources, a few dead candidates, every array that a figure can show."""

from pathlib import Path

import numpy as np
import pytest

from pdiff.analysis.novel import GRID
from pdiff.report.drawing import Figure
from pdiff.report.evidence import Evidence
from pdiff.report.figures import draw_figures

# Source: number of candidates, mean metric of an accuracy, its deviation, similarity, distance.
MADE = {
    "trained": (300, 0.868, 0.006, 0.990, 0.3),
    "generated": (200, 0.870, 0.005, 0.973, 2.3),
    "codec": (200, 0.869, 0.004, 0.975, 1.9),
    "soup": (1, 0.872, 0.0, 0.976, 4.5),
    "soup16": (100, 0.871, 0.002, 0.973, 4.4),
    "interpolation": (200, 0.870, 0.004, 0.982, 1.2),
    "gaussian": (200, 0.8695, 0.003, 0.939, 10.7),
    "gaussian_subspace": (200, 0.868, 0.006, 0.95, 5.1),
    "noise05": (200, 0.868, 0.006, 0.9925, 1.0),
    "noise15": (200, 0.8685, 0.006, 0.978, 3.2),
    "noise_absolute": (200, 0.82, 0.02, 0.9, 20.0),
    "ensemble": (1, 0.876, 0.0, 0.97, None),
}


def metrics(rng: np.random.Generator, n: int, mean: float, std: float, higher: bool) -> np.ndarray:
    values = mean + std * rng.standard_normal(n)
    return values if higher else 40 * (1 - values)


def finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def row(tests: np.ndarray, similarity: float, distance: float | None, higher: bool) -> dict:
    living = tests[np.isfinite(tests)]
    interval = [living.mean() - 0.001, living.mean() + 0.001] if len(tests) > 1 else None
    worst = tests.min() if higher else tests.max()
    return {
        "n": len(tests), "effective_n": 12.4 if len(tests) > 1 else 1.0,
        "dead": len(tests) - len(living), "best": float(living[0]), "best_index": 0,
        "best_ci": [float(living[0]) - 0.02, float(living[0]) + 0.02], "best_of": float(living.mean()),
        "mean": float(living.mean()), "mean_ci": interval, "std": float(living.std()),
        "median": float(np.median(living)), "worst": finite(worst), "similarity": similarity, "distance": distance,
        "spread": None if distance is None else 0.8,
        "details": {"ECE": {"best": 0.02, "mean": float(living.std())}},
    }  # fmt: skip


def make_evidence(higher: bool = True) -> Evidence:
    """Return arrays of every kind; of `noise_absolute` five candidates are dead."""
    rng = np.random.default_rng(0)
    tests = {name: metrics(rng, n, mean, std, higher) for name, (n, mean, std, _, _) in MADE.items()}
    tests["noise_absolute"][-5:] = -np.inf if higher else np.inf
    with_vectors = [name for name, figures in MADE.items() if figures[4] is not None]
    turn = np.linspace(0, 3, 300)
    curve = np.stack([np.cos(turn), np.sin(2 * turn)], 1)

    def plane(name: str) -> np.ndarray:
        n, reach = MADE[name][0], 0.02 * MADE[name][4]
        return curve[rng.integers(0, 300, n)] + reach * rng.standard_normal((n, 2))

    steps = np.arange(0, 51, 5)
    rise = 1 / (1 + np.exp(-(steps - 30) / 5.0))
    front = {name: np.zeros(len(tests[name]), bool) for name in list(MADE)[2:]}
    for name in ("gaussian", "soup16", "soup", "ensemble", "noise_absolute"):
        front[name][np.argmax(tests[name]) if higher else np.argmin(tests[name])] = True
    return Evidence(
        tests=tests,
        trains={n: (1 + tests[n]) / 2 + 0.002 * rng.standard_normal(len(tests[n])) for n in ("trained", "generated")},
        similarities={n: f[3] + 0.005 * rng.standard_normal(f[0]) for n, f in MADE.items()},
        front=front,
        distances={n: np.abs(MADE[n][4] * (1 + 0.1 * rng.standard_normal(MADE[n][0]))) for n in with_vectors},
        coordinates={
            f"layer4.1.bn{k}.weight[{17 * k}]": {
                n: 1 + 0.1 * rng.standard_normal(MADE[n][0]) for n in ("trained", "generated", "gaussian")
            }
            for k in (1, 2, 3, 4)
        },
        vectors={n: plane(n) for n in with_vectors},
        latents={n: plane(n) for n in ("trained", "generated")},
        path=np.where(higher, 0.1 + 0.77 * rise, 36 - 30 * rise)[:, None] + rng.normal(0, 0.02, (11, 6)),
        path_steps=steps,
        codec_errors={f"layer4.1.bn{k}.{part}": 0.01 * k for k in range(15) for part in ("weight", "bias")},
        novel={n: np.exp(-np.linspace(0, 3, len(GRID)) / (1 + MADE[n][4])) for n in with_vectors if MADE[n][0] > 1},
        losses={"autoencoder": [], "denoiser": list(np.exp(-np.linspace(0, 3, 1000)) + 0.1 * rng.random(1000))},
    )


def make_summary(higher: bool = True, failed: bool = False, ignored: bool = False) -> dict:
    """Return a summary as `report/summary.json` holds it."""
    tests = make_evidence(higher).tests
    sources = {name: row(tests[name], MADE[name][3], MADE[name][4], higher) for name in MADE}
    means = {name: figures["mean"] if higher else -figures["mean"] for name, figures in sources.items()}
    comparisons = {
        name: {
            "difference": means["generated"] - mean,
            "ci": [means["generated"] - mean - 0.0008, means["generated"] - mean + 0.0008],
            "ci_simultaneous": [means["generated"] - mean - 0.0012, means["generated"] - mean + 0.0012],
            "superiority": 0.5 + 20 * max(-0.02, min(0.02, means["generated"] - mean)),
            "p": 0.01,
            "p_adjusted": 0.04 if abs(means["generated"] - mean) > 0.0012 else 0.6,
            "relation": "no clear difference (better if it were the only one)",
        }
        for name, mean in means.items()
        if name != "generated"
    }
    gates = [
        {"stage": stage, "name": name, "passed": True, "line": f"{name}: as it should be (0.123)", "figures": {}}
        for stage, name in (("collect", "duplicates"), ("fit", "codec"), ("generate", "moments"), ("evaluate", "dead"))
    ]
    if failed:
        gates[1] |= {"passed": False, "line": "codec: decoded <held-out> checkpoints fall from 0.87 to 0.31"}
    stages = ("collect", "fit", "generate", "evaluate", "compare")
    return {
        "plugin": "classification",
        "metric": {"name": "accuracy" if higher else "FID", "higher_is_better": higher, "chance": 0.1},
        "verdict": "average-like: generated (0.8701) resemble the soup, and no source is beaten by more than p < 0.05",
        "verdict_kind": "average-like",
        "gates": gates,
        "gates_ignored": ignored,
        "budget": 100,
        "sources": sources,
        "comparisons": comparisons,
        "choice": {
            "spearman": 0.41, "p": 0.0002, "regret": 0.004, "n": 200, "gain": 0.003, "gain_ci": [-0.001, 0.007],
            "difference": -0.0012, "difference_ci": [-0.004, 0.0016],
            "select": {"spearman": 0.5, "p": 1e-5, "regret": 0.002, "gain": 0.0042, "gain_ci": None},
        },
        "margin": 0.003,
        "quality": None,
        "baselines": "better than gaussian; no clear difference to soup, soup16",
        "notes": ["the generated are of one fit: no interval speaks of another. Raise fit.repeats"],
        "novelty": {"line": "not shown to be new: similarity 0.973, not surely below 0.970 of <other> branches"},
        "copying": {
            "statistic": 4.2, "p": 0.99998, "copies": False, "power": False,
            "line": "the generated lie 0.81 times as far",
            "controls": {
                "codec": {"p": 1e-9, "as_expected": True}, "noise": {"p": 1e-4, "as_expected": True},
                "fresh": {"p": 0.002, "as_expected": False},
            },
        },
        "task": {"classes": 10, "images": {"train": 500, "test": 1000}, "network": "resnet18 <timm>"},
        "pictures": [],
        "seconds": dict(zip(stages, (36.5, 14.2, 0.4, 41.3, 5.9), strict=True)),
        "peak_memory_bytes": dict.fromkeys(stages, 1_250_000_000),
        "resumed": ["collect"],
        "environment": {"python": "3.11.7", "packages": {"torch": "2.14.1", "numpy": "2.2.0"}, "processor": "a CPU",
                        "threads": 2, "device": "cpu", "git_commit": None, "seed": 0},
        "command": "tools/run.py --plugin classification --work-dir runs/demo",
    }  # fmt: skip


# Source over conditions: mean accuracy, slope of the measured bits, agreement, distance, spread, seconds per network.
CONDITIONAL = {
    "oracle": (0.9245, 0.86, 1.0, 4.1, 1.0, 0.11),
    "nearest": (0.838, 0.70, 0.55, 0.0, 0.98, 0.0002),
    "nearest10": (0.916, 0.79, 0.83, 1.9, 0.72, 0.0004),
    "interpolation2": (0.881, 0.75, 0.66, 1.5, 0.80, 0.0003),
    "ridge": (0.902, 0.78, 0.80, 2.8, 0.70, 0.003),
    "ridge2": (0.919, 0.83, 0.86, 2.9, 0.83, 0.004),
    "kernel_ridge": (0.9215, 0.84, 0.88, 2.8, 0.85, 0.006),
    "regression": (0.919, 0.83, 0.87, 2.7, 0.84, 0.09),
    "symmetry": (0.839, 0.70, 0.55, 0.9, 0.98, 0.0003),
    "generated": (0.918, 0.83, 0.85, 3.1, 0.91, 0.21),
    "generated_permuted": (0.497, -0.01, 0.04, 3.1, 0.91, 0.21),
    "soup": (0.611, 0.02, 0.22, 3.7, 0.0, 0.0001),
    "oracle_codec": (0.923, 0.85, 0.95, 2.3, 0.97, 0.002),
}


def pair_of(values: np.ndarray, sign: int = 1) -> list[float]:
    reach = 2 * values.std() / np.sqrt(len(values) / 2)
    return sorted([sign * float(values.mean() - reach), sign * float(values.mean() + reach)])


def make_conditional(higher: bool = True, levels: int = 2, draws: bool = False, failed: bool = False) -> dict:
    """Return the summary of a run over subsets of ten classes, 51 unseen ones and their complements.

    Args:
        higher: whether the metric is one of which more is better.
        levels: how many distances there are to the nearest seen condition.
        draws: whether several networks were drawn for a condition.
        failed: whether a gate failed.
    """
    rng, names = np.random.default_rng(0), [f"class{k}" for k in range(10)]
    half = rng.permutation(511)[:51] + 1
    bits = ((np.concatenate([half, 1023 - half])[:, None] >> np.arange(10)) & 1).astype(float)
    distances = 1.0 + (rng.random(102) * levels).astype(int) * 0.5
    difficulty = 0.02 * rng.standard_normal(102)
    sign = 1 if higher else -1
    values, measured = {}, {}
    for name, (mean, slope, *_) in CONDITIONAL.items():
        noise = (0.008 + 0.3 * min(abs(0.9245 - mean), 0.1)) * rng.standard_normal(102)
        accuracy = mean + difficulty + noise - noise.mean() - 0.008 * (distances - 1)
        values[name] = np.minimum(accuracy, 0.99) if higher else 40 * (1 - accuracy)
        answers = 0.5 + slope * (bits - 0.5) + 0.06 * rng.standard_normal(bits.shape)
        measured[name] = {key: np.clip(answers[:, k], 0, 1).tolist() for k, key in enumerate(names)}
    sources = {}
    for name, (_, slope, agreement, distance, spread, seconds) in CONDITIONAL.items():
        gain = sign * (values[name] - values["oracle"])
        sources[name] = {
            "n": 102, "units": 51, "mean": float(values[name].mean()), "ci": pair_of(values[name]),
            "std": float(values[name].std()), "worst": float(sign * (sign * values[name]).min()),
            "select": float(values[name].mean()) - sign * 0.001, "dead": int(name == "generated_permuted" and draws),
            "to_oracle": None if name == "oracle" else {
                "difference": float(gain.mean()), "ci": pair_of(gain), "p": 0.004,
                "p_adjusted": 0.03 if pair_of(gain)[1] < 0 else 0.4,
            },
            "agreement": agreement, "distance": distance, "spread": spread,
            "dispersion": 0.4 if draws and name.startswith("generated") else None,
            "near": [
                {"distance": float(d), "mean": float(values[name][at].mean()), "n": int(at.sum())}
                for d, at in ((d, distances == d) for d in np.unique(distances))
            ],
            "obeys": {
                key: {"slope": slope + 0.03 * float(rng.standard_normal()), "correlation": min(1.0, abs(slope) + 0.1)}
                for key in names
            },
            "seconds": seconds,
            "note": "the training of one network, of 1,022 at once" if name == "oracle" else "",
        }  # fmt: skip
    comparisons = {}
    for name in CONDITIONAL:
        gain = sign * (values["generated"] - values[name])
        if name != "generated":
            low, high = pair_of(gain)
            word = "better" if low > 0.002 else "worse" if high < -0.002 else "no clear difference"
            comparisons[name] = {
                "difference": float(gain.mean()), "ci": [low, high], "ci_simultaneous": [low - 0.001, high + 0.001],
                "p": 0.01, "p_adjusted": 0.07, "relation": word,
            }  # fmt: skip
    shared = make_summary(higher, failed)
    return {
        **{key: shared[key] for key in ("gates", "gates_ignored", "seconds", "peak_memory_bytes", "environment")},
        "plugin": "classification",
        "metric": {"name": "accuracy" if higher else "error", "higher_is_better": higher, "chance": 0.5, "best": None},
        "task": {"images": {"train": 1000, "test": 500}, "network": "64-32-2 <SiLU>", "chance": "of a constant answer"},
        "conditional": True,
        "conditions": {
            "names": names, "example": dict(zip(names, bits[0].tolist(), strict=True)),
            "seen": 868, "select": 52, "unseen": 102,
            "groups": {"seen": 434, "select": 26, "unseen": 51}, "left_out": 0, "split": "random",
            "symmetry": "complement",
            "networks": {"seen": 868, "oracles": 154},
            "distance": {
                "unit": "numbers that differ", "min": float(distances.min()), "median": float(np.median(distances)),
                "max": float(distances.max()),
            },
            "lines": [
                "102 unseen conditions in 51 groups; the nearest seen condition lies at a distance of 1 (median)",
                "a condition and its complement are one group, and stand on one side of the split",
            ],
        },
        "best_source": "kernel_ridge",
        "verdict": "level with kernel_ridge: for unseen conditions the generated have accuracy 0.9180, kernel_ridge "
        "<0.9215> (gain -0.0035, 95% interval -0.0080 to +0.0010); best on select conditions is kernel_ridge, 0.0030 "
        "below the oracle (0.9245)",
        "verdict_kind": "level",
        "notes": ["the generated are of one fit: no interval speaks of another. Raise fit.repeats"],
        "sources": sources,
        "comparisons": comparisons,
        "points": {
            "distance": distances.tolist(),
            "metric": {name: found.tolist() for name, found in values.items()},
            "requested": {name: {key: bits[:, k].tolist() for k, key in enumerate(names)} for name in measured},
            "measured": measured,
        },
        "command": "tools/run.py configs/classification/subsets_digits.yaml --work-dir runs/subsets_digits",
        "pictures": [],
        "resumed": [],
    }  # fmt: skip


@pytest.fixture
def made():
    """Return summary and evidence of a made-up run, by the metric's direction and the state of its gates."""

    def make(higher: bool = True, failed: bool = False, ignored: bool = False) -> tuple[dict, Evidence]:
        return make_summary(higher, failed, ignored), make_evidence(higher)

    return make


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> tuple[Path, list[Figure]]:
    """All figures of a made-up run, and the folder of their files; not to be changed."""
    folder = tmp_path_factory.mktemp("drawn")
    return folder, draw_figures(folder, make_summary(), make_evidence())


@pytest.fixture
def made_conditional():
    """Return the summary of a made-up run over conditions; see `make_conditional`."""
    return make_conditional
