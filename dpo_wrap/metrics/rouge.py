"""ROUGE of answers with the chosen answers as references, for evaluate.load.

    metric = evaluate.load("dpo_wrap/metrics/rouge.py")
    metric.compute(predictions=["the answer"], references=["the chosen one"])

F-measures of ROUGE-1, ROUGE-2 and ROUGE-L with stemming (Lin 2004) by the package rouge-score. The
values per example give eval the interval of the change.
"""

import datasets
import evaluate
from rouge_score import rouge_scorer

KINDS = ("rouge1", "rouge2", "rougeL")


class Rouge(evaluate.Metric):
    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Lin 2004, ROUGE: A Package for Automatic Evaluation of Summaries",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions, references):
        scorer = rouge_scorer.RougeScorer(KINDS, use_stemmer=True)
        scores = [scorer.score(r, p) for p, r in zip(predictions, references, strict=True)]
        each = {kind: [score[kind].fmeasure for score in scores] for kind in KINDS}
        means = {kind: sum(values) / len(values) for kind, values in each.items()}
        return means | {f"{kind}_per_example": values for kind, values in each.items()}
