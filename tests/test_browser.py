"""report.html in headless Chromium: it renders, asks for nothing, and what is text stays text."""

import contextlib
import functools
import html
import http.server
import json
import re
import shutil
import subprocess
import threading

import pytest
from test_report_page import FOUND, LINES, RUN, SUSPECT

from dpo_wrap.report.page import write_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")

QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-default-apps", "--no-default-browser-check", "--disable-extensions"),
)
EVIL = "<script>document.title = 'taken over'</script><img src=//evil.example/x onerror=alert(1)>"
# The page in a frame of its own width, since a headless window has a least width; no script of the
# page's may run, so the frame around it looks at it.
FRAME = """<!doctype html><iframe id=f src=/report.html style="width:%dpx;height:3000px;border:0">
</iframe><pre id=out></pre><script>
f.onload = () => {
  const d = f.contentDocument, box = e => e.getBoundingClientRect();
  const wide = [...d.querySelectorAll("main *")].filter(
    e => box(e).right > %d + 1 && !e.closest(".wide") && !e.closest("pre"));
  out.textContent = JSON.stringify({
    title: d.title, text: d.body.innerText, width: d.documentElement.scrollWidth,
    elements: d.querySelectorAll("main *").length, wide: wide.map(e => e.outerHTML.slice(0, 80)),
    scripts: d.querySelectorAll("script, img, link, iframe").length,
    charts: [...d.querySelectorAll("svg")].map(e => box(e).height),
    ink: getComputedStyle(d.body).color, paper: getComputedStyle(d.body).backgroundColor,
    verdict: box(d.querySelector(".verdict")).top, samples: d.querySelectorAll("article").length,
  });
};
</script>"""


def requests_of(log):
    """What pages asked for, by Chromium's own log; what it asks for itself has no origin."""
    events = [event.get("params", {}) for event in json.loads(log.read_text("utf-8"))["events"]]
    return {e["url"] for e in events if e.get("initiator", "not an origin") != "not an origin"}


@pytest.fixture
def look(tmp_path):
    """A function that opens the page of a run and says what a browser makes of it."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, *_):
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def open_page(width, *flags, page=None, **files):
        for name, content in files.items():
            lines = content if isinstance(content, list) else [content]
            text = "".join(f"{json.dumps(line)}\n" for line in lines)
            (tmp_path / name.replace("__", ".")).write_text(text, "utf-8")
        (tmp_path / "config.resolved.yaml").write_text("model_path: gpt2\nbeta: 0.1\n")
        if page is None:
            write_page(tmp_path)
        else:
            (tmp_path / "report.html").write_text(page, "utf-8")
        (tmp_path / "frame.html").write_text(FRAME % (width, width), "utf-8")
        log = tmp_path / "net.json"
        command = [CHROMIUM, *QUIET, f"--user-data-dir={tmp_path}/profile", "--dump-dom", *flags]
        command += ["--virtual-time-budget=4000", f"--log-net-log={log}"]
        command += [f"http://127.0.0.1:{server.server_port}/frame.html"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        found = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
        assert found, done.stderr[-2000:]
        return json.loads(html.unescape(found[1])) | {"asked": asked, "urls": requests_of(log)}

    yield open_page
    with contextlib.suppress(OSError):
        server.shutdown()
    server.server_close()


SAMPLES = [{"prompt": f"Q{n}?", "reference": "no idea", "policy": "because"} for n in range(20)]
WHOLE = {
    "run__json": RUN,
    "metrics__jsonl": LINES,
    "eval__json": FOUND,
    "samples__jsonl": SAMPLES,
    "suspects__jsonl": [SUSPECT] * 3,
}


@pytest.mark.parametrize(
    ("width", "theme", "dark"),
    [
        (1000, "--blink-settings=preferredColorScheme=1", False),
        (360, "--blink-settings=preferredColorScheme=0", True),
    ],
)
def test_the_page_renders_in_both_themes_on_a_desk_and_on_a_phone(look, width, theme, dark):
    seen = look(width, theme, **WHOLE)
    assert "learned: the margin rose to 1.75" in seen["text"]
    assert "It prefers the chosen answer in 95.0%" in seen["text"]
    assert seen["verdict"] < 160  # the first thing that is seen
    assert len(seen["charts"]) >= 9 and min(seen["charts"]) > 20
    assert seen["samples"] == 23
    assert seen["wide"] == [] and seen["width"] <= width
    ink, paper = (sum(map(int, re.findall(r"\d+", seen[name])[:3])) for name in ("ink", "paper"))
    assert (ink > paper) is dark
    assert abs(ink - paper) > 450


def test_names_without_a_space_widen_nothing_on_a_phone(look):
    name = "data/raw/annotations_2026_batch_17_second_vendor_reannotated_final_v3.jsonl" * 2
    found = {
        "findings": [{"tone": "warning", "text": name}] * 2,
        "groups": {"file": {name: {"reward_accuracy": 0.5, "examples": 10}}},
        "reward_margin": 1e12,
    }
    seen = look(
        360,
        run__json=RUN | {"verdict": name, "warnings": [{"lines": [name]}], "notes": [name]},
        eval__json=FOUND | found,
        suspects__json={"crowds": [name]},
        suspects__jsonl=[SUSPECT | {"source": name, "team": name}],
        samples__jsonl=[dict.fromkeys(("prompt", "policy", "reference"), name)],
    )
    assert seen["width"] <= 360


def test_the_page_asks_for_nothing(look):
    seen = look(800, **WHOLE)
    assert set(seen["asked"]) <= {"/frame.html", "/report.html", "/favicon.ico"}
    assert {url.rpartition("/")[2] for url in seen["urls"]} - {"favicon.ico"} == {"report.html"}


def test_a_page_that_asked_for_something_would_be_found_out(look):
    seen = look(800, page="<main><p class=verdict>x<img src=//evil.example/y></main>")
    assert any("evil.example" in url for url in seen["urls"]) and seen["scripts"] == 1


def test_markup_of_data_model_and_config_stays_text_that_is_seen(look):
    evil = {
        "run__json": RUN | {"verdict": EVIL},
        "eval__json": FOUND
        | {"findings": [{"tone": EVIL, "text": EVIL}], "groups": {EVIL: {EVIL: {}}}},
        "samples__jsonl": [dict.fromkeys(("prompt", "reference", "policy"), EVIL)],
        "suspects__jsonl": [dict.fromkeys(SUSPECT, EVIL)],
    }
    seen = look(800, **evil)
    assert seen["scripts"] == 0
    assert seen["title"].startswith("DPO run")
    assert seen["text"].count("<script>document.title") >= 5
    assert not any("evil.example" in url for url in seen["urls"])
