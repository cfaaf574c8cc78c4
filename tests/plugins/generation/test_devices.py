"""A run of a generator on a simulated GPU ends with the bytes of the CPU."""


def test_a_run_ends_with_the_bytes_of_the_cpu(finished_generator, on_gpu):
    on_gpu(finished_generator)
