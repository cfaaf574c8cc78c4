"""Generate neural-network parameters with latent diffusion, for any task by plugin."""

from pdiff.runtime.lazy import lazily

MODULES = {
    "pdiff.engine.autoencoder": ["Autoencoder"],
    "pdiff.engine.conditioning": ["ConditionEmbedding"],
    "pdiff.engine.denoiser": ["Denoiser"],
    "pdiff.engine.generator": ["Generator"],
    "pdiff.engine.parameter_diffusion": ["ParameterDiffusion"],
    "pdiff.engine.process": ["Process"],
    "pdiff.engine.registries": ["AUTOENCODERS", "DENOISERS", "GENERATORS", "SAMPLERS", "SCALINGS"],
    "pdiff.engine.runner": ["QuietRunner"],
    "pdiff.engine.scaling": ["Scaling"],
    "pdiff.engine.training": ["Bfloat16OptimWrapper", "ShowProgress"],
    "pdiff.files.formats": ["FORMATS", "Zoo"],
    "pdiff.files.reader": ["Reader"],
    "pdiff.run.sources": ["SOURCES"],
    "pdiff.runtime.delivery": ["to_host"],
    "pdiff.runtime.errors": ["PdiffError", "check_keys", "check_positive", "check_section", "check_type", "known"],
    "pdiff.runtime.packing": ["pack", "unpack"],
    "pdiff.runtime.progress": ["progress"],
    "pdiff.runtime.registry": ["build", "call"],
    "pdiff.runtime.seeding": ["derive_seed", "generator", "isolated_seed", "resolve_device", "seed_all"],
    "pdiff.runtime.storage": [
        "explain_write_errors",
        "new_folder",
        "read_tensors",
        "read_tensors_and_metadata",
        "write_bytes",
        "write_json",
        "write_tensors",
    ],
    "pdiff.task.markers": ["hookimpl"],
    "pdiff.task.replay": ["Prefix", "Replay"],
    "pdiff.task.similarity": ["error_iou"],
    "pdiff.task.task": ["Candidates", "Evaluation", "Metric", "Picture", "Snapshot", "Task"],
    "pdiff.weights.checkpoints": [
        "SUFFIXES",
        "check_suffix",
        "export_state_dict",
        "save_checkpoint",
    ],
    "pdiff.weights.conditions": ["Conditions"],
    "pdiff.weights.layout": ["Layout"],
    "pdiff.weights.select": ["is_norm", "parameter_names", "select", "training_modules"],
    "pdiff.weights.ties": ["spread", "state_names"],
    "pdiff.weights.units": ["Gain", "Group", "Place", "Symmetries"],
}
NAMES = {name: module for module, names in MODULES.items() for name in names}

__all__ = sorted(NAMES)  # noqa: PLE0605
__getattr__ = lazily(__name__, NAMES)
