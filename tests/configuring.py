"""What the tests of configs share: a text that is loaded, and the lines that refuse it."""

import pytest

from dpo_wrap.config import load_settings
from dpo_wrap.errors import ConfigError

NEEDED = "model_path: base\ndataset_path: pairs.csv\noutput_dir: out\n"


def loader(tmp_path):
    """A function that loads a config text, which follows NEEDED unless it is whole."""

    def load(text, *overrides, whole=False):
        path = tmp_path / "config.yaml"
        path.write_text(text if whole else NEEDED + text, "utf-8")
        return load_settings(str(path), overrides)

    return load


def refuser(tmp_path):
    """A function to the lines of the refusal, without the folder that the file lies in."""

    def refuse(text, *overrides, whole=False):
        with pytest.raises(ConfigError) as caught:
            loader(tmp_path)(text, *overrides, whole=whole)
        assert caught.value.status == 2
        return str(caught.value).replace(f"{tmp_path}/", "").splitlines()

    return refuse
