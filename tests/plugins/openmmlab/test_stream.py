"""A program that calls back, as an iterator: order, strict turns, errors, and a thread that always ends."""

import gc
import itertools
import threading
import time
import traceback

import pytest
from pdiff_plugins.openmmlab.stream import Cancelled, stream

NAME = "pdiff-collect"


def threads() -> list[threading.Thread]:
    """Return the threads of programs that still run."""
    return [thread for thread in threading.enumerate() if thread.name == NAME]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    """Check that a test leaves no program behind."""
    yield
    assert threads() == []


def count(emit) -> None:
    """Hand over the numbers for ever."""
    for number in itertools.count():
        emit(number)


def test_items_come_in_the_order_in_which_they_are_handed_over():
    def program(emit):
        for number in range(50):
            emit(number)

    assert list(stream(program)) == list(range(50))


def test_a_program_that_hands_nothing_over_is_an_empty_iterator():
    assert list(stream(lambda emit: None)) == []


def test_none_yields_nothing():
    def program(emit):
        for item in (None, 1, None, None, 2, None):
            emit(item)

    assert list(stream(program)) == [1, 2]


def test_items_that_are_false_are_yielded():
    def program(emit):
        for item in (0, "", [], False):
            emit(item)

    assert list(stream(program)) == [0, "", [], False]


def test_the_program_stands_still_while_the_caller_works():
    turns = []

    def program(emit):
        for number in range(5):
            turns.append(("program", number))
            emit(number)

    for number in stream(program):
        turns.append(("caller begins", number))
        time.sleep(0.01)
        turns.append(("caller ends", number))
    expected = [[("program", n), ("caller begins", n), ("caller ends", n)] for n in range(5)]
    assert turns == list(itertools.chain(*expected))


def test_the_program_does_not_begin_before_the_first_item_is_asked_for():
    begun = []
    iterator = stream(lambda emit: begun.append(True))
    assert (begun, threads()) == ([], [])
    assert list(iterator) == []
    assert begun == [True]


def test_the_program_has_one_thread_of_its_own():
    running = []

    def program(emit):
        for _ in range(3):
            emit(threading.current_thread())

    for thread in stream(program):
        running.append(thread)
        assert threads() == [thread]
    assert len(set(running)) == 1
    assert running[0] is not threading.current_thread()


def fail(emit) -> None:
    """Hand over one number and fail."""
    emit(1)
    raise ValueError("the program's own words")


def test_an_error_of_the_program_reaches_the_caller_with_its_traceback():
    iterator = stream(fail)
    assert next(iterator) == 1
    with pytest.raises(ValueError, match=r"^the program's own words$") as caught:
        next(iterator)
    assert "fail" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert threads() == []
    assert list(iterator) == []


def test_an_error_before_the_first_item_reaches_the_caller():
    def program(emit):
        raise KeyError("early")

    with pytest.raises(KeyError, match="early"):
        next(stream(program))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_ends_the_caller(kind):
    def program(emit):
        raise kind

    with pytest.raises(kind):
        list(stream(program))


def test_closing_cancels_the_program_at_its_next_call():
    reached, cleaned = [], []

    def program(emit):
        try:
            for number in range(5):
                reached.append(number)
                emit(number)
        finally:
            cleaned.append(True)

    iterator = stream(program)
    assert [next(iterator), next(iterator)] == [0, 1]
    iterator.close()
    assert (reached, cleaned) == ([0, 1], [True])
    assert threads() == []


def test_no_handler_of_exceptions_stops_the_cancelling():
    caught = []

    def program(emit):
        for number in itertools.count():
            try:
                emit(number)
            except Exception as error:
                caught.append(error)

    iterator = stream(program)
    next(iterator)
    iterator.close()
    assert caught == []
    assert not issubclass(Cancelled, Exception)


def test_a_program_that_is_closed_while_it_hands_over_nothing_is_cancelled():
    def program(emit):
        emit(1)
        while True:
            emit(None)

    iterator = stream(program)
    next(iterator)
    iterator.close()


def test_an_iterator_that_is_dropped_ends_its_program():
    iterator = stream(count)
    assert next(iterator) == 0
    del iterator
    gc.collect()
    assert threads() == []


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_of_the_caller_ends_the_program(kind):
    def work():
        for number in stream(count):
            if number == 3:
                raise kind

    with pytest.raises(kind):
        work()
    gc.collect()
    assert threads() == []


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_error_thrown_into_the_iterator_ends_the_program(kind):
    iterator = stream(count)
    next(iterator)
    with pytest.raises(kind):
        iterator.throw(kind)
    assert threads() == []


def test_streams_inside_each_other_do_not_mix():
    def outer(emit):
        for number in range(3):
            for inner in stream(lambda give, n=number: [give((n, m)) for m in range(2)]):
                emit(inner)

    assert list(stream(outer)) == [(n, m) for n in range(3) for m in range(2)]


def test_closing_ends_a_stream_inside_the_program():
    def outer(emit):
        for number in stream(count):
            emit(number)

    iterator = stream(outer)
    next(iterator)
    iterator.close()
    assert threads() == []
