"""The share of reviews that the quickstart's grammar accepts, as a module that evaluate.load takes.

`well_formed` is a share in [0, 1]; `well_formed_per_example` is 1.0 or 0.0 for each prediction.
"""

import datasets
import evaluate

from quickstart import grammar


class WellFormed(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            features=datasets.Features({"predictions": datasets.Value("string")}),
        )

    def _compute(self, predictions):
        accepted = [float(grammar.is_well_formed(text)) for text in predictions]
        return {"well_formed": sum(accepted) / len(accepted), "well_formed_per_example": accepted}
