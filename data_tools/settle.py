"""What needs the whole dataset: duplicates, contradictions and the split; holds keys, no rows."""

import xxhash

from data_tools.keys import pair_key, prompt_key
from data_tools.record import Fault, Pair, Place

TRAIN, TEST, CONTRADICTORY, DUPLICATE = range(4)
_FORWARD, _BACKWARD = 1, 2


class Settlement:
    """Takes every pair's keys in order, then tells in the same order what becomes of each."""

    def __init__(self, test_size: float, seed: int):
        self._threshold = int(test_size * (1 << 128))
        self._salt = f"{seed}:".encode()
        self._keys: list[bytes] = []
        self._way = bytearray()  # of each pair
        self._ways: dict[bytes, int] = {}
        self._excluded: dict[tuple[bytes, int], Place] = {}
        self._prompts: list[bytes] = []

    def add(self, pair: Pair) -> None:
        prompt = prompt_key(pair.prompt)
        key, forward = pair_key(pair, prompt)
        self._keys.append(key)
        self._prompts.append(prompt)
        self._way.append(_FORWARD if forward else _BACKWARD)
        self._ways[key] = self._ways.get(key, 0) | self._way[-1]

    def exclude(self, comparison: tuple[bytes, bool], place: Place) -> None:
        """A pair that --exclude-rows lists; where the same one is kept elsewhere, that is said."""
        key, forward = comparison
        self._excluded.setdefault((key, _FORWARD if forward else _BACKWARD), place)

    def in_test(self, prompt: bytes) -> bool:
        """Whether a prompt's salted hash falls below the test share; no row order plays a part."""
        digest = xxhash.xxh3_128_digest(self._salt + prompt)
        return int.from_bytes(digest, "big") < self._threshold

    def finish(self) -> "Settled":
        """What becomes of every pair that was added, to be asked for in the same order."""
        verdicts, seen = bytearray(len(self._keys)), set()
        prompts: tuple[set[bytes], set[bytes]] = (set(), set())
        repeated = set()
        again: dict[int, Place] = {}
        for index, (key, prompt) in enumerate(zip(self._keys, self._prompts, strict=True)):
            if self._ways[key] == _FORWARD | _BACKWARD:
                verdicts[index] = CONTRADICTORY
                repeated.add(key)
            elif key in seen:
                verdicts[index] = DUPLICATE
                repeated.add(key)
            else:
                seen.add(key)
                if listed := self._excluded.get((key, self._way[index])):
                    again[index] = listed
                verdicts[index] = TEST if self.in_test(prompt) else TRAIN
                prompts[verdicts[index]].add(prompt)
        notes = []
        if prompts[TEST] and not prompts[TRAIN]:
            verdicts = verdicts.replace(bytes([TEST]), bytes([TRAIN]))
            prompts = (prompts[TEST], set())
            notes.append("train would have been empty, so every pair is in train")
        counts = {
            "train": len(prompts[TRAIN]),
            "test": len(prompts[TEST]),
            "shared": len(prompts[TRAIN] & prompts[TEST]),
        }
        keys = {i: key for i, key in enumerate(self._keys) if key in repeated} if repeated else {}
        return Settled(verdicts, keys, counts, notes, again)


class Settled:
    """The verdicts, in the order in which the pairs were added."""

    def __init__(
        self,
        verdicts: bytearray,
        keys: dict[int, bytes],
        prompts: dict[str, int],
        notes: list[str],
        again: dict[int, Place],
    ):
        self._again = again  # of kept pairs that --exclude-rows lists at another place
        self.prompts, self.notes = prompts, notes
        self._verdicts, self._keys, self._index = verdicts, keys, -1
        self._first: dict[bytes, Place] = {}  # of pairs that are not alone

    def next(self, place: Place) -> str | Fault:
        """The split of the next pair, or why it goes after all."""
        self._index += 1
        verdict, key = self._verdicts[self._index], self._keys.get(self._index)
        first = self._first.setdefault(key, place) if key else place
        if listed := self._again.get(self._index):
            self.notes.append(
                f"{place}: kept, though the same pair is listed in --exclude-rows as {listed}; "
                "list this place too, if neither is wanted"
            )
        if verdict == CONTRADICTORY:
            where = "further on" if first is place else f"at {first} or beside it"
            return Fault(
                "contradictory",
                f"the same two answers to this prompt are also judged the other way, {where}; "
                "decide which is right and drop the other",
            )
        if verdict == DUPLICATE:
            return Fault("duplicate", f"the same pair stands at {first}, which is kept")
        return "test" if verdict == TEST else "train"
