"""Test prompts that equal one in train except for case and punctuation; holds keys, no texts."""

import numpy as np

_NONE = np.empty(0, np.uint64)


class NearDuplicates:
    """Takes the keys (`keys.near_duplicate_keys`) of kept prompts; finds those in both splits.

    Among a million train prompts, a test prompt matches by chance once in 10^13. `candidates` are
    the sorted keys of all prompts that may be in test: other keys of train are not held.
    """

    def __init__(self, candidates: np.ndarray = _NONE):
        self._candidates = candidates
        self._train = self._test = _NONE

    def add(self, keys: np.ndarray, in_test: np.ndarray) -> None:
        self._train = np.union1d(self._train, _shared(self._candidates, keys[~in_test]))
        self._test = np.union1d(self._test, keys[in_test])

    def merge(self, other: "NearDuplicates") -> None:
        self._train = np.union1d(self._train, other._train)
        self._test = np.union1d(self._test, other._test)

    def found(self) -> np.ndarray:
        """The keys of test prompts that are in train too."""
        return np.intersect1d(self._test, self._train, assume_unique=True)


def _shared(candidates: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Those of the keys that are among the sorted candidates."""
    at = np.searchsorted(candidates, keys)
    at[at == len(candidates)] = 0
    return keys[candidates[at] == keys] if len(candidates) else _NONE
