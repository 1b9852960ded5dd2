import pytest

from mm.messages import is_first_process, listing, near


def test_near() -> None:
    assert near("LABEL", ["label", "text"]) == "; did you mean 'label'?"
    assert near("q", ["label"]) == ""
    assert near("texts", ["text", "test", "audio"], most=2) == "; did you mean 'text' or 'test'?"


def test_listing() -> None:
    assert listing(["a", "b"]) == "a, b"
    assert listing([str(k) for k in range(14)]).endswith("11 and 2 more")
    assert len(listing(["x" * 99])) == 40


@pytest.mark.parametrize(("text", "first"), [("", True), (" ", True), ("0", True), ("1", False)])
def test_an_empty_rank_is_none(monkeypatch, text, first):
    for name in ("LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", text)
    assert is_first_process() is first


def test_a_rank_that_is_no_number_is_named(monkeypatch):
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(ValueError, match="environment variable RANK: got 'first', wanted a whole number"):
        is_first_process()
