"""Merge an adapter into its base model: python -m dpo_wrap.merge RUN_DIR OUT_DIR

The saved model is loaded again and compared with the adapter; past the tolerance it is removed.
"""

import argparse
import dataclasses
import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from dpo_wrap import checkpoints, cli
from dpo_wrap.config import Settings, load_settings, with_trust
from dpo_wrap.errors import ConfigError, ModelError
from dpo_wrap.hub import check_paths, configure_environment
from dpo_wrap.ownership import locked
from dpo_wrap.run_dir import CONFIG, RUN, read_run, weight_digests
from dpo_wrap.terminal import show

EXAMPLES = """RUN_DIR is the output_dir of a run, one of its checkpoints, or any directory with an
adapter. The base model is the one named in RUN_DIR/config.resolved.yaml, otherwise in
adapter_config.json. Merging needs four bytes of memory per parameter and no GPU.

examples:
  python -m dpo_wrap.merge runs/dpo models/dpo
  python -m dpo_wrap.merge runs/dpo models/dpo --dtype bfloat16
  python -m dpo_wrap.merge runs/dpo/checkpoint-200 models/dpo-200

exit status: 0 merged; 1 the merged model differs from the adapter, or the command failed or was
stopped, and nothing was written; 2 refused."""

ADAPTER, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def parser() -> argparse.ArgumentParser:
    """The command line; no library is imported for its --help."""
    parser = argparse.ArgumentParser(
        prog="python -m dpo_wrap.merge",
        description="Merge a trained adapter into its base model, compare the two, and save one "
        "model with tokenizer and chat template.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cli.add_version(parser)
    add = parser.add_argument
    add("run_dir", type=cli.path, metavar="RUN_DIR", help="the directory of the adapter")
    help = "where to save the model; a new or empty directory"
    add("out_dir", type=cli.path, metavar="OUT_DIR", help=help)
    add(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="dtype of the saved weights; default: the one the base model was loaded in for "
        "training (float32 unless model_init_kwargs set another)",
    )
    add(
        "--tolerance",
        type=cli.number(float, 0),
        metavar="NATS",
        help="largest allowed difference of any log-probability on the probe prompts; default: "
        "0.001 for float32, 0.05 for float16, 0.2 for bfloat16, and at most half of what training "
        "changed",
    )
    add(
        "--trust-remote-code",
        action="store_true",
        help="run the base model's own code, whatever the config in RUN_DIR says",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = parser().parse_args(argv)

    def command(stop: cli.Stop) -> int:
        out = shlex.quote(str(merge(**vars(arguments))))
        show(f"serve it:\n  vllm serve {out}")
        show(f"  python convert_hf_to_gguf.py {out} --outfile {out}.gguf    (llama.cpp)")
        return 0

    return cli.run(command, stopped="stopped; nothing was written")


def merge(
    run_dir: str | os.PathLike,
    out_dir: str | os.PathLike,
    *,
    dtype: str | None = None,
    tolerance: float | None = None,
    trust_remote_code: bool = False,
) -> Path:
    """Merge the adapter in `run_dir` into its base model, and return the directory of the result.

    The options are those of the command. Raises DpoWrapError where it would exit with 1 or 2.
    """
    cli.check_options(parser(), {"dtype": dtype, "tolerance": tolerance})
    settings = merge_settings(os.fspath(run_dir), os.fspath(out_dir), trust_remote_code)
    configure_environment(settings)
    run = Path(settings.adapter_path)
    home = run.parent if checkpoints.FOLDER.match(run.name) else run
    _check_base(settings, read_run(home) or {})
    if (run / CONFIG).is_file() and not (run / RUN).is_file():
        show(f"{run} has no {RUN}: the run is not finished; merging its current adapter")
    # Imports torch and trl, which takes seconds: not before the paths are right.
    from dpo_wrap.merge_adapter import merge_adapter
    from dpo_wrap.system_errors import system_errors_reported

    retry, less_memory = "run the same command again", "a machine with more memory"
    with (
        system_errors_reported(Path(settings.output_dir), retry, less_memory),
        locked(home, "merge", shared=True),
    ):
        merge_adapter(settings, dtype, tolerance)
    return Path(out_dir)


def merge_settings(run_dir: str, out_dir: str, trust: bool = False) -> Settings:
    """The run's settings, with RUN_DIR as adapter_path and OUT_DIR as output_dir.

    `trust` is trust_remote_code, for which the run's own value does not count.
    Raises ModelError if RUN_DIR has no adapter, ConfigError if OUT_DIR cannot be written.
    """
    run, out = Path(run_dir).expanduser(), Path(out_dir).expanduser().resolve()
    _check_run(run)
    is_checkpoint = checkpoints.FOLDER.match(run.name) is not None
    homes = [run, run.parent] if is_checkpoint else [run]
    config = next((home / CONFIG for home in homes if (home / CONFIG).is_file()), None)
    settings = load_settings(str(config)) if config else _settings_of_adapter(run)
    settings = dataclasses.replace(
        settings,
        dataset_path=(),
        metrics=(),
        adapter_path=str(run),
        output_dir=str(out),
        locations={**settings.locations, "adapter_path": "RUN_DIR", "output_dir": "OUT_DIR"},
        trl={**with_trust(settings.trl, {"trust_remote_code": trust}), "push_to_hub": False},
    )
    check_paths(settings)
    if out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"OUT_DIR {out} is not empty; give an empty or new directory")
    for name, path in (("RUN_DIR", run), ("the base model", Path(settings.model_path))):
        if path.expanduser().resolve() in out.parents:
            raise ConfigError(f"OUT_DIR {out} is inside {name} ({path}); give another")
    return settings


def _check_run(run: Path) -> None:
    """Raise ModelError if RUN_DIR has no complete adapter, naming what it has instead."""
    if not (run / ADAPTER).is_file():
        if (run / "config.json").is_file():
            raise ModelError(f"RUN_DIR {run} is already a model; there is nothing to merge")
        inside = [path for path in checkpoints.find(run) if (path / ADAPTER).is_file()]
        if inside:
            raise ModelError(
                f"RUN_DIR {run} has checkpoints but no adapter: its run is not finished; finish "
                f"it, or merge {inside[0]}"
            )
        problem = f"has no {ADAPTER}" if run.is_dir() else "is not a directory"
        raise ModelError(f"RUN_DIR {run} {problem}; give the output_dir of a run")
    if not (run / WEIGHTS).is_file():
        raise ModelError(f"RUN_DIR {run} has no {WEIGHTS}; train it again")


def _check_base(settings: Settings, run: dict[str, Any]) -> None:
    """Raise ModelError if the base model's files are not those that the run was trained on."""
    before = run.get("weights") or {}
    now = weight_digests(settings.model_path)
    if changed := [name for name, value in now.items() if before.get(name, value) != value]:
        raise ModelError(
            f"{settings.where('model_path')} {settings.model_path!r}: {', '.join(changed)} changed "
            "after the training, so the adapter does not belong to it; restore the files"
        )


def _settings_of_adapter(run: Path) -> Settings:
    """Settings for an adapter without a run's config."""
    place = f"{run / ADAPTER}: base_model_name_or_path"
    try:
        base = json.loads((run / ADAPTER).read_text("utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        raise ModelError(f"{run / ADAPTER} is damaged; fetch the adapter again") from None
    if not base or not isinstance(base, str):
        raise ModelError(f"{place} is not set; set it to the path of the base model")
    return Settings(base, (), "", locations={"model_path": place}, source=str(run / ADAPTER))


def script() -> NoReturn:
    """The command that an installation adds."""
    cli.exit_with(main())


cli.make_callable(__name__, merge)

if __name__ == "__main__":
    script()
