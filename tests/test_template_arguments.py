"""What a run gives to its chat template, and what the template does not render."""

import yaml
from datasets import Dataset, DatasetDict
from evaluating import lines_of, refused, write_config, write_lines
from training import TALK

from dpo_wrap import eval as eval_command
from dpo_wrap import train

TEMPLATE = (
    "{% for m in messages %}<{{ style }}{{ m['role'][0] }}>{{ m['content'] }}<|endoftext|>"
    "{% endfor %}{% if add_generation_prompt %}<{{ style }}a>{% endif %}"
)


def test_the_arguments_of_a_run_apply_wherever_a_row_has_none(tmp_path, tiny_model_dir, capsys):
    (tmp_path / "t.jinja").write_text(TEMPLATE)
    own = [None, {"style": "own"}, None, None]
    rows = [row | {"chat_template_kwargs": k} for row, k in zip(TALK[:4], own, strict=True)]
    splits = {"train": Dataset.from_list(rows), "test": Dataset.from_list(rows[:2])}
    DatasetDict(splits).save_to_disk(str(tmp_path / "talks"))
    keys = {
        "chat_template": str(tmp_path / "t.jinja"),
        "chat_template_kwargs": {"style": "x"},
        "max_steps": 1,
        "num_epochs": None,
    }
    config = write_config(tmp_path, tiny_model_dir, tmp_path / "talks", **keys)
    assert train.main([str(config), "--dry-run"]) == 0
    ends = "<|endoftext|>"
    printed = capsys.readouterr().out
    assert f": <xu>Day 0: it was{ends}<xa>[[lovely.{ends}]]\n" in printed
    assert f": <ownu>Day 1: it was{ends}<owna>[[sunny.{ends}]]\n" in printed
    assert train.main([str(config)]) == 0
    resolved = yaml.safe_load((tmp_path / "run/config.resolved.yaml").read_text())
    assert resolved["chat_template_kwargs"] == {"style": "x"}
    assert eval_command.main([str(config), "--samples", "2", "--max-new-tokens", "2"]) == 0
    prompts = [line["prompt"] for line in lines_of(tmp_path / "run/samples.jsonl")]
    assert sorted(prompts) == ["<ownu>Day 1: it was<owna>", "<xu>Day 0: it was<xa>"]
    other = ("--set", "chat_template_kwargs={style: y}")
    assert "chat_template_kwargs is {'style': 'y'}, but" in refused(capsys, str(config), *other)
    assert train.main([str(config), *other]) == 2
    assert "chat_template_kwargs" in capsys.readouterr().err


def test_fields_that_are_not_rendered_are_reported_by_every_command(
    tmp_path, tiny_model_dir, capsys
):
    reasoned = [{"role": "assistant", "content": "yes", "reasoning_content": "hm"}]
    rows = [row | {"chosen": reasoned} if n < 3 else row for n, row in enumerate(TALK)]
    data = write_lines(tmp_path / "talks.jsonl", rows)
    config = write_config(tmp_path, tiny_model_dir, data, chat_template="chatml", max_steps=1)
    line = "does not render these fields of the data: reasoning_content (3 messages of assistant)"
    assert train.main([str(config), "--set", "num_epochs=1"]) == 0
    assert line in capsys.readouterr().out
    options = ("--samples", "0", "--split", "train")
    assert eval_command.main([str(config), *options]) == 0
    assert line in capsys.readouterr().err
