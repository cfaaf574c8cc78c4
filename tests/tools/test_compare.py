"""The command `compare` as a user calls it."""


def test_runs_are_set_side_by_side(call, tmp_path, monkeypatch, compared):
    monkeypatch.chdir(tmp_path)
    done = call("compare", compared("one"), compared("two"), "-o", "all.html")
    assert done.code == 0, done.err
    assert done.out.endswith("comparison: all.html, all.png\n")
    assert (tmp_path / "all.html").is_file()
    assert (tmp_path / "all.png").is_file()


def test_runs_over_conditions_are_set_side_by_side(call, tmp_path, monkeypatch, compared_over_conditions):
    monkeypatch.chdir(tmp_path)
    done = call("compare", compared_over_conditions("one"), compared_over_conditions("two"), "-o", "all.html")
    assert done.code == 0, done.err
    assert "best ★" in done.out
    assert done.out.endswith("comparison: all.html, all.png\n")
    assert (tmp_path / "all.html").is_file()
    assert (tmp_path / "all.png").is_file()


def test_runs_of_both_kinds_are_one_line_and_nothing_is_written(
    call, tmp_path, monkeypatch, compared, compared_over_conditions
):
    monkeypatch.chdir(tmp_path)
    done = call("compare", compared("one"), compared_over_conditions("two"))
    assert done.code == 2
    assert done.err.strip() == (
        "error: runs: got two over conditions and one without, expected one kind. Compare each kind alone."
    )
    assert not list(tmp_path.glob("comparison.*"))


def test_mistake_is_one_line_and_exit_code_2(call, tmp_path, compared):
    done = call("compare", compared("one"), tmp_path / "none")
    assert done.code == 2
    assert done.err.startswith(f"error: {tmp_path / 'none'}: is no run directory")
    assert len(done.err.strip().splitlines()) == 1


def test_output_that_cannot_be_written_is_one_line(call, tmp_path, monkeypatch, compared):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    done = call("compare", compared("one"), "-o", "file/all.html")
    assert done.code == 2
    assert "file/all.png: cannot be written" in done.err


def test_figures_are_written_as_csv(call, tmp_path, monkeypatch, compared):
    monkeypatch.chdir(tmp_path)
    paths = [compared(name) for name in ("run0", "run1")]
    for seed, path in enumerate(paths):
        (path / "config.yaml").write_text(f"plugin: classification\nseed: {seed}\n")
    done = call("compare", *paths, "-o", "all.html", "--csv", "all.csv")
    assert done.code == 0, done.err
    assert done.out.endswith("comparison: all.html, all.png, all.csv\n")
    head, *rows = (tmp_path / "all.csv").read_text().splitlines()
    assert head.startswith("run,group,seed,fit.seed,metric,")
    assert [row.split(",")[:5] for row in rows] == [
        ["run0", "run", "0", "0", "accuracy"], ["run1", "run", "1", "1", "accuracy"],
    ]  # fmt: skip


def test_csv_that_cannot_be_written_is_one_line(call, tmp_path, monkeypatch, compared):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    done = call("compare", compared("one"), "--csv", "file/all.csv")
    assert done.code == 2
    assert "file/all.csv: cannot be written" in done.err
