"""Shared by the tests of configs: load a config text, or list the lines of its error."""

import pytest

from dpo_wrap.config import load_settings
from dpo_wrap.errors import ConfigError

REQUIRED_KEYS = "model_path: base\ndataset_path: pairs.csv\noutput_dir: out\n"


def loader(tmp_path):
    """A function that loads REQUIRED_KEYS and a config text, or with `whole` the text alone."""

    def load(text, *overrides, whole=False):
        path = tmp_path / "config.yaml"
        path.write_text(text if whole else REQUIRED_KEYS + text, "utf-8")
        return load_settings(str(path), overrides)

    return load


def error_lister(tmp_path):
    """A function that returns the lines of the error, without the directory of the file."""

    def errors(text, *overrides, whole=False):
        with pytest.raises(ConfigError) as caught:
            loader(tmp_path)(text, *overrides, whole=whole)
        assert caught.value.status == 2
        return str(caught.value).replace(f"{tmp_path}/", "").splitlines()

    return errors
