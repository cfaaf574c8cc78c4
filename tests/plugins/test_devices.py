"""Detectors and segmentors on a simulated GPU end with the bytes of the CPU."""


def test_a_run_ends_with_the_bytes_of_the_cpu(case, on_gpu, losses_of_the_cpu):
    on_gpu(case.run)
