"""Runs on a simulated GPU end with the bytes of the CPU; nothing in them mixes the sides."""


def test_a_run_ends_with_the_bytes_of_the_cpu(finished, on_gpu):
    directory, gpu = on_gpu(finished)
    records = directory.records()
    assert {record["device"] for record in records.values()} == {"simulated GPU"}
    exact = {stage: record["flags"]["deterministic_algorithms"] != "no" for stage, record in records.items()}
    assert exact == {"collect": True, "fit": False, "generate": False, "evaluate": True, "compare": False}
    assert gpu.copies_to_device > 0
    assert (directory.path / "report" / "report.html").is_file()


def test_a_run_over_conditions_ends_with_the_bytes_of_the_cpu(conditional, on_gpu):
    on_gpu(conditional)
