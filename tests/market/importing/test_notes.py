from __future__ import annotations

from itertools import count

from qlib_ext.market.importing.notes import Notes


class TestNotes:
    def test_one_sentence_with_the_count_and_the_first_places(self) -> None:
        notes = Notes()
        notes.add("{row} lost", 2, ["a", "b"])
        notes.add("something else")
        notes.add(
            "{row} lost", 1500, (f"place {number}" for number in count())
        )  # endless: only the first are drawn
        assert notes.sentences() == ("1,502 rows lost (first a; b; place 0)", "something else")
        assert (notes.count("{row} lost"), notes.count("never")) == (1502, 0)
        assert notes.places("{row} lost") == ["a", "b", "place 0"]

    def test_one_is_singular_and_none_is_no_note(self) -> None:
        notes = Notes()
        notes.add("{row} lost", 0, ["a"])
        notes.add("{day} lost", 1, ["a"])
        assert notes.sentences() == ("1 day lost (a)",)

    def test_gathered_things_count_once(self) -> None:
        notes = Notes()
        for things in (["a", "b"], ["b", "c", "d", "d"], []):
            notes.gather("{code} guessed", things)
        assert notes.sentences() == ("4 codes guessed (first a; b; c)",)
