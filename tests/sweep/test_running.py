"""What becomes of a run that goes wrong."""

import os
import signal

from pdiff.runtime.errors import PdiffError
from pdiff.sweep.running import KILLED, run_sweep
from pdiff.sweep.setting import Setting


def setting(name: str, collection: str = "all") -> Setting:
    return Setting(name, {}, None, {"name": name}, collection, frozenset())


def test_run_that_goes_wrong_is_a_line_and_the_others_go_on(tmp_path):
    def pipeline(config, directory, stages, **_):
        directory.path.mkdir(parents=True, exist_ok=True)
        if directory.path.name == "wrong":
            raise PdiffError("select: got nothing")
        if directory.path.name == "broken":
            raise ValueError("of a\nplugin")

    ended = run_sweep(tmp_path, [setting("wrong"), setting("broken"), setting("fine")], 1, pipeline)
    log = tmp_path / "runs" / "broken" / "error.log"
    assert ended == {"wrong": "select: got nothing", "broken": f"ValueError: of a plugin (see {log})", "fine": None}
    assert "Traceback" in log.read_text()


def test_runs_without_their_collection_are_lost_and_the_others_go_on(tmp_path):
    def pipeline(config, directory, stages, **_):
        directory.path.mkdir(parents=True, exist_ok=True)
        if directory.path.name == "bad":
            raise PdiffError("collect: got nothing")

    ended = run_sweep(tmp_path, [setting("one", "bad"), setting("two", "good")], 1, pipeline)
    assert ended == {"one": "collection bad: collect: got nothing", "two": None}
    assert not (tmp_path / "runs" / "one").exists()


def test_process_that_is_killed_is_a_line_of_what_is_not_done(tmp_path):
    def kill(config, directory, stages, **_):
        if directory.path.parent.name == "runs":
            os.kill(os.getpid(), signal.SIGKILL)

    assert run_sweep(tmp_path, [setting("one"), setting("two")], 2, kill) == {"one": KILLED, "two": KILLED}


def test_several_at_a_time_end_as_one_by_one_do_and_speak_in_a_file(tmp_path):
    def pipeline(config, directory, stages, **_):
        print("said by", directory.path.name)
        if directory.path.name == "wrong":
            raise PdiffError("select: got nothing")

    settings = [setting("wrong"), setting("fine"), setting("too")]
    ended = run_sweep(tmp_path, settings, 2, pipeline)
    assert ended == {"wrong": "select: got nothing", "fine": None, "too": None}
    assert (tmp_path / "runs" / "fine" / "output.log").read_text() == "said by fine\n"
