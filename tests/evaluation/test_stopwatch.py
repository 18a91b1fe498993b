import mmap

from jointiq.evaluation.stopwatch import Moment, Sections, forget_peak, peak_bytes, resident_bytes


def test_sections_add_up_without_what_is_inside_them() -> None:
    count = 0

    def spend(amount: int) -> None:
        nonlocal count
        count += amount

    sections = Sections(lambda: count)
    inner = sections.measure("inner", spend)

    def work() -> str:
        spend(1)
        inner(10)
        spend(2)
        inner(20)
        return "done"

    assert sections.measure("outer", work)() == "done"
    assert dict(sections.spent) == {"inner": 30, "outer": 3}
    assert dict(sections.calls) == {"inner": 2, "outer": 1}


def test_a_section_that_fails_is_counted_and_leaves_the_others_right() -> None:
    count = 0

    def fail() -> None:
        nonlocal count
        count += 5
        raise ValueError

    sections = Sections(lambda: count)
    failing = sections.measure("inner", fail)

    def work() -> None:
        nonlocal count
        count += 1
        try:
            failing()
        except ValueError:
            count += 1

    sections.measure("outer", work)()
    assert dict(sections.spent) == {"inner": 5, "outer": 2}


def test_moments_subtract() -> None:
    assert Moment(3.0, 2.0) - Moment(1.0, 0.5) == Moment(2.0, 1.5)


def test_the_peak_is_what_was_held_since_it_was_forgotten() -> None:
    forget_peak()
    before = resident_bytes()
    # Pages of its own: what malloc gives may have been resident all along.
    with mmap.mmap(-1, 1 << 26) as held:
        held.write(b"x" * (1 << 26))
    assert peak_bytes() >= before + (1 << 25)
