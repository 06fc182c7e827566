"""The quickstart's metric modules, through evaluate.load, offline."""

import evaluate
import pytest

GOOD = "The soup at the harbour inn was delicious."
BAD = "The soup at the harbour inn was inedible."


@pytest.fixture(params=["sentiment", "well_formed"])
def loaded(request):
    return request.param, evaluate.load(f"quickstart/metrics/{request.param}.py")


def test_a_module_gives_its_mean_and_one_value_a_prediction(loaded):
    name, module = loaded
    found = module.compute(predictions=[GOOD, BAD, GOOD + " And so on"])
    each = found[f"{name}_per_example"]
    assert len(each) == 3
    assert found[name] == pytest.approx(sum(each) / 3)
    assert each == {"sentiment": [1.0, -1.0, 1.0], "well_formed": [1.0, 1.0, 0.0]}[name]
