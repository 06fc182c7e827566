"""The reference's log-probabilities, computed beforehand and kept until the run is finished."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from datasets import Dataset
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from trl import DPOTrainer

from dpo_wrap.data.length_stats import BATCH, IDS
from dpo_wrap.files import make_own, write_atomically

NAMES = ("ref_chosen_logps", "ref_rejected_logps")
"""TRL's columns: nats a whole answer, float32."""
FILE = "reference-{}.safetensors"
SPLITS = ("train", "eval")
"""What TRL calls the splits that it computes beforehand."""


class KeptReference:
    """Where they stand: in the run directory, or aside until the run is accepted."""

    def __init__(self, standing: Path, aside: Path, run: str):
        """`run` is a digest of what makes the run this one."""
        self.standing, self.aside, self.run = standing, aside, run

    def take(self, split: str, key: str) -> dict[str, np.ndarray] | None:
        """The columns that were kept under this key; None where they are not there and whole."""
        try:
            with safe_open(self.standing / FILE.format(split), framework="np") as file:
                columns = {name: file.get_tensor(name) for name in NAMES}
                whole = (file.metadata() or {}) == self._marks(key, columns)
        except (OSError, SafetensorError):
            return None
        return columns if whole else None

    def keep(self, split: str, key: str, columns: Mapping[str, np.ndarray]) -> None:
        make_own(self.aside)
        data = save(dict(columns), metadata=self._marks(key, columns))
        write_atomically(self.aside / FILE.format(split), data)

    def _marks(self, key: str, columns: Mapping[str, np.ndarray]) -> dict[str, str]:
        digest = xxhash.xxh3_128()
        for name in NAMES:
            digest.update(columns[name].tobytes())
        return {"run": self.run, "key": key, "xxh3_128": digest.hexdigest()}


def forget(directory: Path) -> None:
    """Remove what was kept for a run that is finished."""
    for split in SPLITS:
        (directory / FILE.format(split)).unlink(missing_ok=True)


def reference_key(trainer: DPOTrainer, rows: Dataset) -> str:
    """A digest of the rows' tokens and of the reference, its weights and its config."""
    model, digest = trainer.ref_model or trainer.model, xxhash.xxh3_128()
    digest.update(f"{len(rows)} {trainer._precompute_model_hash}".encode())
    digest.update(model.config.to_json_string(use_diff=False).encode())
    if isinstance(model, PeftModel):
        digest.update(_written(model.peft_config).encode())
    for table in rows.select_columns(list(IDS)).with_format("arrow").iter(batch_size=BATCH):
        for column in table.combine_chunks().columns:
            for ids in column.chunks:
                digest.update(np.diff(ids.offsets.to_numpy()).tobytes())
                digest.update(ids.flatten().to_numpy().tobytes())
    return digest.hexdigest()


def _written(configs: Mapping[str, Any]) -> str:
    def plain(value: Any) -> str:
        return str(sorted(value) if isinstance(value, set | frozenset) else value)

    return str(
        {
            name: {key: plain(value) for key, value in sorted(config.to_dict().items())}
            for name, config in sorted(configs.items())
        }
    )
