"""The run directory: where each stage writes, which stages are done, and whether their files are still whole."""

import fcntl
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import yaml

from pdiff.run.stage import STAGES
from pdiff.runtime import processes
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.settings import to_yaml
from pdiff.runtime.storage import explain_write_errors, read_json, read_text, sha256, write_json, write_text

ORDER = list(STAGES)
FOLLOWED = ".lock.others"
DROPPED = ".dropped"
TORN = ("*.part", ".tmp??????")  # left by a write that was killed: by pdiff's own, and by safetensors inside it
ROWS = ("vectors.f32", "provenance.jsonl")
PREPARED = ("task", "logs")  # in the folder of the collection: what is there before the first snapshot
UNSEEN = ("device", "evaluate.together")  # settings that no result shows: a run may go on with others
NOT_RECORDED = ("*.part", "*.state.safetensors", "*.log", "*.json.tmp")


class RunDirectory:
    """One run on disk.

    Args:
        path: the folder, made if it is not there.
    """

    def __init__(self, path: Path):
        self.path = Path(path)

    def folder(self, stage: str) -> Path:
        """Return the folder that a stage writes."""
        return self.path / STAGES[stage].folder

    def folders(self, stage: str) -> list[Path]:
        """Return all folders that a stage writes, its own first."""
        within = STAGES[stage].within
        return [self.folder(stage), *([self.path / within] if within else [])]

    def files(self, stage: str) -> list[Path]:
        """Return the files that a stage has written, without those of a later one inside its folder."""
        others = [self.path / row.within for row in STAGES.values() if row.within and row.name != stage]
        found = [path for folder in self.folders(stage) for path in sorted(folder.rglob("*")) if path.is_file()]
        return [path for path in found if not any(other in path.parents for other in others)]

    @property
    def base(self) -> Path:
        """The frozen network."""
        return self.path / "base.safetensors"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory for this run alone; the other processes of the run then hold it by `followed`.

        Raises:
            PdiffError: another run holds it, or one of its processes still lives, or it cannot be written.
        """
        with explain_write_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with self._held(".lock", fcntl.LOCK_EX):
            with self._held(FOLLOWED, fcntl.LOCK_EX):
                pass  # free: nobody is left of a run whose first process is lost
            yield

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Hold the directory with others, in a process that is not the first: no run begins while one of them lives."""
        with self._held(FOLLOWED, fcntl.LOCK_SH):
            yield

    @contextmanager
    def _held(self, name: str, kind: int) -> Iterator[None]:
        with explain_write_errors(self.path):
            lock = open(self.path / name, "a+")  # noqa: SIM115
        with lock:
            try:
                fcntl.flock(lock, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                line = f"{self.path}: another run is using it. Wait for it, or give another --work-dir."
                raise PdiffError(line) from None
            except OSError as error:
                line = f"{self.path}: cannot be locked ({error.strerror}). Give a --work-dir on another file system."
                raise PdiffError(line) from None
            yield

    def begin(self, config: dict[str, Any], stages: Sequence[str], resume: bool, overwrite: bool) -> None:
        """Make the directory ready for running `stages` with `config`: drop what is repeated, and record the config.

        Args:
            config: the resolved config.
            stages: what is to be run.
            resume: keep what is done, and go on.
            overwrite: drop what was computed with another config; without `resume`, repeat the stages too.

        Raises:
            PdiffError: the directory is of another config, or a stage is done, and nothing says what to do about it;
                nothing is changed then.
        """
        self.drop(self.repeated(config, stages, resume, overwrite))
        write_text(self.path / "config.yaml", to_yaml(config))

    def repeated(self, config: dict[str, Any], stages: Sequence[str], resume: bool, overwrite: bool) -> list[str]:
        """Return the stages whose files do not hold for a run of `stages` with `config`; see `begin`."""
        self.check_own()
        changed = self.changed_keys(config)
        if self.holds_nothing() and (changed or not resume):
            return ORDER
        if changed and not overwrite:
            raise PdiffError(
                f"{self.path}: was made with another config ({', '.join(changed[:4])} differ). "
                "Give another --work-dir, or --overwrite to drop the stages that depend on it."
            )
        done = [stage for stage in stages if self.started(stage)]
        if done and not resume and not overwrite:
            line = f"{self.path}: {done[0]} was run before. Give --resume to go on, or --overwrite to repeat it."
            raise PdiffError(line)
        stale = [name for name in ORDER if any(key.split(".")[0] in STAGES[name].sections for key in changed)]
        too_early = [stage for stage in stale if ORDER.index(stage) < ORDER.index(stages[0])]
        if too_early and self.started(too_early[0]):
            raise PdiffError(
                f"{self.path}: {too_early[0]} was run with another config ({', '.join(changed[:4])} differ), so "
                f"{stages[0]} alone would not fit it. Give --stage all --overwrite, or another --work-dir."
            )
        return self.from_first([*stale, *([] if resume else stages)])

    def check_own(self) -> None:
        """Raise a `PdiffError` for a directory in which something else has the name of what a run writes."""
        names = [name for name in (row.folder for row in STAGES.values()) if (self.path / name).exists()]
        known = (self.path / "config.yaml").exists()
        if (known and "evaluate" not in self.config()) or (names and not known):
            found = "a config.yaml" if known else names[0]
            raise PdiffError(f"{self.path}: holds {found} that is not of a run. Give another --work-dir.")

    def holds_nothing(self) -> bool:
        """Say whether what a run left here is lost to nobody: it stopped before its first snapshot, or in an import.

        Files in the folder of the collection that no collection writes are somebody's, too.
        """
        if self.records() or any(self.folder(stage).exists() for stage in ORDER[1:]):
            return False
        if (self.path / "config.yaml").exists() and (self.config().get("checkpoints") or {}).get("files"):
            return True  # whatever it has read is still in the files
        folder = self.folder("collect")
        files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        return all(path.parts[0] in PREPARED or self._is_empty(folder / path) for path in files)

    @staticmethod
    def _is_empty(path: Path) -> bool:
        """Say whether a file of a collection is what it has before its first snapshot."""
        begun = path.name == "layout.json" or path.name.endswith(".part")
        return begun or (path.name in ROWS and not path.stat().st_size)

    @staticmethod
    def from_first(stages: Sequence[str]) -> list[str]:
        """Return the earliest of some stages and all that follow it."""
        return ORDER[min((ORDER.index(stage) for stage in stages), default=len(ORDER)) :]

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the directory, which the first process has prepared, in the others too.

        Raises:
            PdiffError: one of them does not see it.
        """
        with ExitStack() as held:
            with ExitStack() as marked:
                seen = (self.path / processes.on_main(lambda: self._mark(marked))).is_file()
                if seen and not processes.is_main():
                    held.enter_context(self.followed())
                everywhere = all(processes.gather(seen))
            if not everywhere:
                line = f"{self.path}: is not on all machines of the run. Give a --work-dir that they share."
                raise PdiffError(line)
            yield

    def _mark(self, marked: ExitStack) -> str:
        """Return the name of a new file: another machine's directory of the same name does not have it."""
        with explain_write_errors(self.path):
            return Path(marked.enter_context(NamedTemporaryFile(dir=self.path, prefix=".mark-")).name).name

    def config(self) -> dict[str, Any]:
        """Return the config that the directory was made with; raise a `PdiffError` when its file is corrupt."""
        path = self.path / "config.yaml"
        try:
            config = yaml.safe_load(read_text(path))
            return config if isinstance(config, dict) else {}
        except yaml.YAMLError as error:
            raise PdiffError(f"{path}: is corrupt ({' '.join(str(error).split())}). Give another --work-dir.") from None

    def changed_keys(self, config: dict[str, Any]) -> list[str]:
        """Return the keys in which `config` differs from that of the directory; none for a new directory."""
        if not (self.path / "config.yaml").exists():
            return []
        before, after = flatten(self.config()), flatten(config)
        keys = [key for key in {**before, **after} if key not in UNSEEN]
        return [key for key in keys if before.get(key) != after.get(key)]

    def drop(self, stages: Sequence[str]) -> None:
        """Delete what the stages wrote, the last one first.

        Where that is interrupted, nothing is left that follows from what is gone.
        """
        records = {stage: record for stage, record in self.records().items() if stage not in stages}
        if self.records() != records:
            write_json(self.path / "stages.json", records)
        dropped = self.path / DROPPED
        with explain_write_errors(self.path):
            if dropped.exists():  # an earlier call was interrupted
                shutil.rmtree(dropped)
            for folder in (folder for stage in reversed(stages) for folder in self.folders(stage) if folder.exists()):
                dropped.mkdir(exist_ok=True)
                folder.rename(dropped / folder.name)
            if "collect" in stages:
                self.base.unlink(missing_ok=True)
            if dropped.exists():
                shutil.rmtree(dropped)

    def records(self) -> dict[str, Any]:
        """Return what each finished stage cost and wrote."""
        path = self.path / "stages.json"
        return read_json(path) if path.exists() else {}

    def environment(self) -> dict[str, Any]:
        """Return what the last command ran on; with the `devices` of the stages, where they ran on several."""
        devices = {stage: record["device"] for stage, record in self.records().items() if "device" in record}
        found = read_json(self.path / "environment.json")
        return {**found, "devices": devices} if len({*devices.values(), found["device"]}) > 1 else found

    def started(self, stage: str) -> bool:
        """Say whether a stage left anything."""
        return stage in self.records() or any(folder.exists() for folder in self.folders(stage))

    def finish(self, stage: str, cost: dict[str, Any]) -> None:
        """Record that a stage is done, with the checksum of every file it wrote."""
        files = [path for path in self.files(stage) if self._recorded(path)]
        if stage == "collect":
            files.append(self.base)
        sums = {str(path.relative_to(self.path)): sha256(path) for path in files}
        write_json(self.path / "stages.json", {**self.records(), stage: {**cost, "files": sums}})
        # Only now: without its state, a stage that is not recorded as done would have to start anew.
        self.remove_passing(stage)

    def remove_passing(self, stage: str) -> None:
        """Delete what only an unfinished stage needs."""
        for state in self.files(stage):
            if state.match("*.state.safetensors"):
                state.unlink()
        shutil.rmtree(self.folder(stage) / "branches", ignore_errors=True)

    def remove_torn(self, stage: str) -> None:
        """Delete what killed writes of an unfinished stage have left."""
        for pattern in TORN:
            for path in (*self.path.glob(pattern), *(path for path in self.files(stage) if path.match(pattern))):
                if path.is_file():
                    path.unlink()

    def _recorded(self, path: Path) -> bool:
        folders = [self.folder(stage) / name for stage in STAGES for name in ("logs", "branches")]
        folders += self.folder("fit").glob("repeats/*/logs")
        passing = any(folder in path.parents for folder in folders)
        return path.is_file() and not passing and not any(path.match(p) for p in NOT_RECORDED)

    def require(self, stage: str) -> None:
        """Raise a `PdiffError` unless a stage is done and all it wrote is unchanged."""
        if stage not in self.records():
            raise PdiffError(f"{self.path}: {stage} is not done. Run it first: --stage {stage}, or --stage all.")
        for name, checksum in self.records()[stage]["files"].items():
            path = self.path / name
            if not path.is_file():
                raise PdiffError(f"{path}: is missing. Repeat its stage: --stage {stage} --overwrite.")
            if sha256(path) != checksum:
                raise PdiffError(f"{path}: differs from its checksum. Repeat its stage: --stage {stage} --overwrite.")


def flatten(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted key."""
    result: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, dict) and value:
            result |= flatten(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result
