"""The true reward of the quickstart's reviews, as a module that evaluate.load takes.

`sentiment` is the mean over the predictions of quickstart.grammar's true_reward, in [-1, 1];
`sentiment_per_example` has one value a prediction, of which eval makes a paired interval.
"""

import datasets
import evaluate

from quickstart import grammar


class Sentiment(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            features=datasets.Features({"predictions": datasets.Value("string")}),
        )

    def _compute(self, predictions):
        rewards = [grammar.true_reward(text) for text in predictions]
        return {"sentiment": sum(rewards) / len(rewards), "sentiment_per_example": rewards}
