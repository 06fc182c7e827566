"""Precomputed log-probabilities of the reference, stored until the run is finished."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from datasets import Dataset
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from transformers import PreTrainedModel

from dpo_wrap.data.length_stats import BATCH, token_columns
from dpo_wrap.files import make_own, write_atomically

COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
"""TRL's names: nats of a whole answer, float32."""
FILE = "reference-{}.safetensors"
SPLITS = ("train", "eval")
"""TRL's names of the splits that have them."""


class ReferenceStore:
    """Stored columns by split, read from the run directory and written to its temp_dir.

    They move into the run directory with everything else in temp_dir once the run is accepted.
    """

    def __init__(self, run_directory: Path, temp_dir: Path, run_digest: str):
        self.run_directory, self.temp_dir, self.run_digest = run_directory, temp_dir, run_digest

    def key(self, model: PreTrainedModel | PeftModel, model_hash: str, rows: Dataset) -> str:
        """Digest of the run, of the reference with its config, and of the rows' tokens."""
        digest = xxhash.xxh3_128(f"{self.run_digest} {len(rows)} {model_hash}".encode())
        digest.update(model.config.to_json_string(use_diff=False).encode())
        if isinstance(model, PeftModel):
            configs = {name: config.to_dict() for name, config in model.peft_config.items()}
            digest.update(json.dumps(configs, sort_keys=True, default=_as_text).encode())
        for table in (
            rows.select_columns(token_columns(rows)).with_format("arrow").iter(batch_size=BATCH)
        ):
            for column in table.combine_chunks().columns:
                for ids in column.chunks:
                    digest.update(np.diff(ids.offsets.to_numpy()).tobytes())
                    digest.update(ids.flatten().to_numpy(zero_copy_only=False).tobytes())
        return digest.hexdigest()

    def load(self, split: str, key: str) -> dict[str, np.ndarray] | None:
        """The columns stored under this key; None if there are none or the file is damaged."""
        try:
            with safe_open(self.run_directory / FILE.format(split), framework="np") as file:
                columns = {name: file.get_tensor(name) for name in COLUMNS}
                return columns if file.metadata() == _metadata(key, columns) else None
        except (OSError, SafetensorError):
            return None

    def save(self, split: str, key: str, rows: Dataset) -> None:
        """Store the columns of these rows."""
        columns = {name: np.asarray(rows[name], dtype=np.float32) for name in COLUMNS}
        make_own(self.temp_dir)
        data = save(columns, metadata=_metadata(key, columns))
        write_atomically(self.temp_dir / FILE.format(split), data)


def delete_stored(directory: Path) -> None:
    """Delete the stored columns of a finished run."""
    for split in SPLITS:
        (directory / FILE.format(split)).unlink(missing_ok=True)


def _as_text(value: Any) -> str:
    return str(sorted(value) if isinstance(value, set | frozenset) else value)


def _metadata(key: str, columns: Mapping[str, np.ndarray]) -> dict[str, str]:
    digest = xxhash.xxh3_128()
    for name in COLUMNS:
        digest.update(columns[name].tobytes())
    return {"key": key, "xxh3_128": digest.hexdigest()}
