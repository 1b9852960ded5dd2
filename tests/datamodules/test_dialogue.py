import pytest

from mm.datamodules.dialogue import DialogueDataModule, split_turns
from mm.targets.classes import ClassTarget

HOW = {"batch_size": 2, "num_workers": 0, "on_error": "raise", "split": {"val": 0.0, "test": 0.0, "seed": 0}, "seed": 0}
TALK = "Doctor: What is it?\nPatient: My back.\nIt hurts: badly.\nDoctor: Since when?\n\nPatient: May."


@pytest.fixture
def path(tmp_path):
    (tmp_path / "talks.csv").write_text(f'dialogue\n"{TALK}"\n""\n"Doctor: Hello.\nPatient: Hi."\n')
    return str(tmp_path / "talks.csv")


def module(path, **how) -> DialogueDataModule:
    own = {"column": "dialogue", "speaker": None, "history": 2, "reply": False} | how
    return DialogueDataModule(path, **own, **HOW, readers={"target": ClassTarget()})


def test_turns():
    told = split_turns(TALK.replace("It hurts: badly.", "It hurts, badly."))
    assert told == [
        ("Doctor", "What is it?"), ("Patient", "My back. It hurts, badly."), ("Doctor", "Since when?"),
        ("Patient", "May."),
    ]  # fmt: skip
    assert split_turns("A: up\n10:30 is early\nsee http://x.y") == [("A", "up 10:30 is early see http://x.y")]


def test_a_row_is_a_turn_after_those_before(path):
    made = module(path, speaker="Patient")
    table = made.table
    assert list(table.ids) == ["0-1", "0-4", "2-1"]
    assert list(table.inputs["text"]) == [
        "Doctor: What is it?",
        "It hurts: badly.\nDoctor: Since when?",
        "Doctor: Hello.",
    ]
    assert [made.truth("target", row) for row in range(3)] == ["My back.", "May.", "Hi."]
    pairs = module(path, reply=True).table
    assert list(pairs.inputs["reply"]) == ["My back.", "badly.", "Since when?", "May.", "Hi."]
    assert not pairs.targets


def test_mistakes(path):
    with pytest.raises(ValueError, match="no turn of 'Nurse' after another; Doctor, Patient, It hurts speak"):
        _ = module(path, speaker="Nurse").table
    with pytest.raises(ValueError, match="no column 'talk'; there are dialogue"):
        _ = module(path, column="talk").table
    with pytest.raises(ValueError, match="datamodule.history: got 0, wanted at least 1 turn"):
        module(path, history=0)
