from mm.messages import listing, near


def test_near() -> None:
    assert near("LABEL", ["label", "text"]) == "; did you mean 'label'?"
    assert near("q", ["label"]) == ""
    assert near("texts", ["text", "test", "audio"], most=2) == "; did you mean 'text' or 'test'?"


def test_listing() -> None:
    assert listing(["a", "b"]) == "a, b"
    assert listing([str(k) for k in range(14)]).endswith("11 and 2 more")
    assert len(listing(["x" * 99])) == 40
