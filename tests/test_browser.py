"""report.html in headless Chromium: it renders, requests nothing, and text stays text."""

import html
import json
import re
import shutil
import subprocess

import pytest
from test_report_page import EVIL, FOUND, LINES, RUN, SUSPECT, run_with

from dpo_wrap.report.page import page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-default-apps", "--no-default-browser-check", "--disable-extensions"),
)
# The page is in a frame of the given width, since a headless window has a minimum width. The script
# around it reads the page, which may run none of its own.
FRAME = """<!doctype html><iframe id=f style="width:%dpx;height:3000px;border:0" srcdoc="%s">
</iframe><pre id=out></pre><script>
f.onload = () => {
  const d = f.contentDocument, box = e => e.getBoundingClientRect();
  const wide = [...d.querySelectorAll("main *")].filter(
    e => box(e).right > f.clientWidth + 1 && !e.closest(".wide") && !e.closest("pre"));
  out.textContent = JSON.stringify({
    title: d.title, text: d.body.innerText, width: d.documentElement.scrollWidth,
    wide: wide.map(e => e.outerHTML.slice(0, 80)),
    scripts: d.querySelectorAll("script, img, link, iframe").length,
    charts: [...d.querySelectorAll("figure")].map(e => box(e).height),
    bars: [...d.querySelectorAll("rect")].map(e => box(e).width / box(e.parentElement).width),
    ink: getComputedStyle(d.body).color, paper: getComputedStyle(d.body).backgroundColor,
    verdict: box(d.querySelector(".verdict")).top, articles: d.querySelectorAll("article").length,
  });
};
</script>"""


def look(directory, source, width, *flags):
    """What a browser shows of a page, and the `urls` that it requested for it."""
    frame, log = directory / "frame.html", directory / "net.json"
    frame.write_text(FRAME % (width, html.escape(source)), "utf-8")
    command = [CHROMIUM, *QUIET, f"--user-data-dir={directory}/profile", "--dump-dom", *flags]
    command += ["--virtual-time-budget=4000", f"--log-net-log={log}", frame.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    # Requests of the browser itself have no origin.
    events = [event.get("params", {}) for event in json.loads(log.read_text("utf-8"))["events"]]
    urls = {e["url"] for e in events if e.get("initiator", "not an origin") != "not an origin"}
    return json.loads(html.unescape(found[1])) | {"urls": urls}


def look_at_run(directory, width, *flags, **files):
    """What a browser shows of the page of a run with these files, and that it requests nothing."""
    for name, content in files.items():
        lines = content if isinstance(content, list) else [content]
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        (directory / name.replace("__", ".")).write_text(text, "utf-8")
    seen = look(directory, page(directory), width, *flags)
    assert seen["urls"] == set() and seen["scripts"] == 0
    assert seen["title"].startswith("DPO run")
    assert seen["wide"] == [] and seen["width"] <= width
    return seen


@pytest.mark.parametrize(
    ("width", "theme", "dark"),
    [
        (1000, "--blink-settings=preferredColorScheme=1", False),
        (360, "--blink-settings=preferredColorScheme=0", True),
    ],
)
def test_the_page_renders_in_both_themes_at_desktop_and_phone_width(tmp_path, width, theme, dark):
    samples = [{"prompt": f"Q{n}?", "reference": "no idea", "policy": "ok"} for n in range(20)]
    seen = look_at_run(
        tmp_path,
        width,
        theme,
        run__json=RUN,
        metrics__jsonl=LINES,
        eval__json=FOUND,
        samples__jsonl=samples,
        suspects__jsonl=[SUSPECT] * 3,
    )
    assert "learned: the margin rose to 1.75" in seen["text"]
    assert "t prefers the chosen answer in 95.0%" in seen["text"]
    assert seen["verdict"] < 160  # visible without scrolling
    assert len(seen["charts"]) >= 9 and min(seen["charts"]) > 40
    assert seen["bars"][:3] == pytest.approx([0.95, 0.72, 0.61], abs=0.01)
    assert seen["articles"] == 23
    ink, paper = (sum(map(int, re.findall(r"\d+", seen[name])[:3])) for name in ("ink", "paper"))
    assert (ink > paper) is dark
    assert abs(ink - paper) > 450


def test_any_text_from_data_model_and_config_is_shown_as_text_and_fits_a_phone(tmp_path):
    text = EVIL + "annotations_2026_batch_17_second_vendor_reannotated_final_v3.jsonl" * 2
    seen = look_at_run(tmp_path, 360, **run_with(text))
    assert seen["text"].count(text) >= 12


def test_a_request_by_the_page_would_be_noticed(tmp_path):
    source = "<main><p class=verdict>x<img src=https://evil.example/y></main>"
    seen = look(tmp_path, source, 800)
    assert any("evil.example" in url for url in seen["urls"]) and seen["scripts"] == 1
