import pytest


def test_nothing_to_learn_from(make) -> None:
    with pytest.raises(ValueError, match="column 'y': no training row is labelled; look at datamodule.columns.target"):
        make("a.csv", "text,y,split\na,,train\nb,,train\nc,x,val\n", text="text", target="y")
    with pytest.raises(ValueError, match="column 'y': there are no training rows to learn it from"):
        make("a.csv", "text,y,split\na,x,test\n", text="text", target="y")
