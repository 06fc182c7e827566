"""The judge command against `transformers serve`, with a model of random weights."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from dpo_wrap import judge
from dpo_wrap.evaluation.win_rate import read_verdicts, to_judge, win_rate
from dpo_wrap.judge.endpoint import CUT_OFF, EMPTY, UNCLEAR

for needed in ("openai", "fastapi", "uvicorn"):
    pytest.importorskip(needed, reason="the server's or the judge's packages are not installed")

pytestmark = pytest.mark.slow
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
SERVE = Path(sys.executable).with_name("transformers")


@pytest.fixture(scope="module")
def chat_model(tiny_model_dir, tmp_path_factory):
    """The tiny model with a chat template and a longer context."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    path = tmp_path_factory.mktemp("serve") / "model"
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(path)
    config = AutoConfig.from_pretrained(tiny_model_dir, n_positions=4096)
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def server(chat_model, tmp_path_factory):
    """The address of a server of that model on a free port of loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [SERVE, "serve", chat_model, "--host", "127.0.0.1", "--port", port, "--device", "cpu"]
    log = tmp_path_factory.mktemp("log") / "serve.log"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*map(str, words)], stdout=file, stderr=file, env=environment, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}"
        limit = time.monotonic() + 180
        while not healthy(f"{address}/health"):
            assert process.poll() is None and time.monotonic() < limit, log.read_text("utf-8")
            time.sleep(0.2)
        yield f"{address}/v1"
    finally:
        process.kill()
        process.wait()


def healthy(address):
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return direct.open(address, timeout=2).status == 200
    except OSError:
        return False


@pytest.fixture
def run(server, chat_model, tmp_path, monkeypatch, capsys):
    """Run the command on three samples: status, stdout, stderr, lines of the file."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    path, out = tmp_path / "to_judge.jsonl", tmp_path / "verdicts.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in to_judge(SAMPLES, 0)), encoding="utf-8")

    def go(*options, model=str(chat_model)):
        words = [str(path), "--model", model, "--base-url", server, "--max-retries", "1"]
        status = judge.main([*words, *options])
        printed = capsys.readouterr()
        text = out.read_text("utf-8") if out.exists() else ""
        return status, printed.out, printed.err, [*map(json.loads, text.splitlines())]

    go.out = out
    return go


SAMPLES = [{"prompt": f"Say {n}.", "policy": f"{n}", "reference": "Verdict: 1"} for n in range(3)]


def test_replies_of_a_real_server_without_a_verdict_are_counted(run):
    status, out, err, lines = run("--max-tokens", "16")
    assert status == 0 and "0 of 6 records have a verdict" in out, err
    assert len(lines) == 6
    assert {line["fault"] for line in lines} <= {CUT_OFF, EMPTY, UNCLEAR}
    assert all(line["reply"] for line in lines if line["fault"] != EMPTY)
    assert sum(line["fault"] == CUT_OFF for line in lines) >= 1  # random weights rarely end a text
    found = win_rate(SAMPLES, read_verdicts(run.out))
    assert (found["win_rate"], found["unjudged"], found["no_verdict"]) == (None, 3, 6)
    again = run("--max-tokens", "16")
    assert again[0] == 0 and again[3] == lines and "questions" not in again[2]


def test_a_model_that_the_server_does_not_have_is_a_failed_request(run):
    status, out, err, lines = run(model="no/such-model")
    assert status == 1, out
    assert "no/such-model" in err and "Traceback" not in err
    assert not [line for line in lines if line["preference"] is not None]
