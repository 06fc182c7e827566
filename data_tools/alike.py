"""Prompts of test that train has too but for case and punctuation; holds keys, no texts."""

import numpy as np

_NONE = np.empty(0, np.uint64)


class AlikePrompts:
    """Takes the loose keys (`odd.loose_key`) of kept pairs, then tells which stand in both splits.

    Keys are 8 bytes: of a million prompts in train, about one test prompt in 10^13 is called alike
    by chance. `candidates` are the keys of all pairs that may be in test, sorted: of the prompts
    in train only those that are among them are held.
    """

    def __init__(self, candidates: np.ndarray = _NONE):
        self._candidates = candidates
        self._train = self._test = _NONE

    def add(self, keys: np.ndarray, in_test: np.ndarray) -> None:
        self._train = np.union1d(self._train, _shared(self._candidates, keys[~in_test]))
        self._test = np.union1d(self._test, keys[in_test])

    def merge(self, other: "AlikePrompts") -> None:
        self._train = np.union1d(self._train, other._train)
        self._test = np.union1d(self._test, other._test)

    def found(self) -> np.ndarray:
        """The keys of test prompts, alike ones taken as one, that stand in train as well."""
        return np.intersect1d(self._test, self._train, assume_unique=True)


def _shared(candidates: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Those of the keys that are among the sorted candidates."""
    at = np.searchsorted(candidates, keys)
    at[at == len(candidates)] = 0
    return keys[candidates[at] == keys] if len(candidates) else _NONE
