"""The page of `earshot serve` in a real browser: searched in every way, looked at, listened to, added to."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import soundfile

from earshot import audio
from earshot.types import Clip

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install playwright")
playwright.expect.set_options(timeout=30_000)
pytest.importorskip("fastapi", reason="the server is missing: pip install '.[serve]'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is missing: apt-get install chromium")

SAMPLES = Path(__file__).parents[1] / "samples"
WORD = SAMPLES / "lecture.opus@43.2-44.1"  # "gradient", and what is around it
MARKUP = "<b>notes<b> & <img src=x onerror=alert(1)>.ogg"
ANSWER = [
    "The widow of the light",
    "house keeper paid [1].\n",
    "<b>Nobody</b> else did [1, 2]. See [1-3] of [2019-2021].",
]


class Model(BaseHTTPRequestHandler):
    """A model behind an OpenAI-compatible endpoint that says ANSWER to everything."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for piece in ANSWER:
            event = {"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]}
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *arguments: object) -> None:
        pass


def earshot(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "earshot", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


def served(library: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """A server, and the address that it prints."""
    command = [sys.executable, "-m", "earshot", "-l", str(library), "serve", "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    address = re.search(r"http://\S+", line)
    assert address, line
    return process, address[0]


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """Where the samples are served, one of them under a name that holds HTML, with a model that answers."""
    talks = folder / "talks"
    talks.mkdir()
    for name in ("lecture.opus", "podcast.m4a", "council-meeting.mp3"):
        shutil.copy(SAMPLES / name, talks)
    soundfile.write(talks / "court.aiff", audio.load(Clip(str(SAMPLES / "court-hearing.opus"))), 16_000)
    shutil.copy(SAMPLES / "field-notes.ogg", talks / MARKUP)
    earshot("-l", folder / "library", "index", talks)
    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as model:
        threading.Thread(target=model.serve_forever, daemon=True).start()
        process, address = served(
            folder / "library", "--endpoint", f"http://127.0.0.1:{model.server_port}/v1", "--send", "audio"
        )
        yield address
        process.terminate()
        process.communicate(timeout=60)
        model.shutdown()


@pytest.fixture(scope="module")
def browser(folder: Path) -> Iterator[Any]:
    """Chromium whose microphone hears "gradient"."""
    spoken = folder / "spoken.wav"
    earshot("clip", WORD, spoken)
    arguments = ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    arguments.append(f"--use-file-for-fake-audio-capture={spoken}%noloop")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page that is open, and what it did."""

    page: Any
    address: str
    troubles: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, path: str = "") -> None:
        self.page.goto(self.address + path)
        playwright.expect(self.page.locator("#open-recordings")).to_have_text(re.compile("^[0-9]+ recording"))

    def search(self, text: str) -> None:
        self.page.fill("#query", text)
        self.page.press("#query", "Enter")

    def told(self, line: str | re.Pattern[str]) -> None:
        """Wait until the page says how much it found."""
        playwright.expect(self.page.locator("#count")).to_have_text(line)

    def probabilities(self, word: str) -> list[float]:
        """Of the hits of a word, as the server tells them."""
        hits = self.page.request.get(f"{self.address}api/find", params={"q": word, "top": 200}).json()
        return [hit["probability"] for hit in hits]

    @property
    def chips(self) -> Any:
        return self.page.locator(".chip:visible")

    @property
    def paused(self) -> bool:
        return bool(self.page.evaluate("document.querySelector('#audio').paused"))

    @property
    def time(self) -> float:
        return float(self.page.evaluate("document.querySelector('#audio').currentTime"))

    def plays_after(self, start: float) -> None:
        """Wait until it plays, not much behind `start`."""
        deadline = time.monotonic() + 30
        while (self.paused or not start < self.time) and time.monotonic() < deadline:
            self.page.wait_for_timeout(50)
        assert start < self.time < start + 5
        assert not self.paused

    @property
    def shown(self) -> tuple[float, float]:
        """What the waveform is of, in seconds."""
        start, _, end = self.page.locator(".ruler span").all_text_contents()
        return seconds(start), seconds(end)


def seconds(clock: str) -> float:
    minutes, rest = clock.split(":")
    return int(minutes) * 60 + float(rest)


@pytest.fixture
def settings() -> dict[str, Any]:
    """Of the browser's window; tests may bring others."""
    return {}


@pytest.fixture
def visit(browser: Any, address: str, settings: dict[str, Any]) -> Iterator[Visit]:
    """The page, opened. Whatever a test does: nothing on the console, and nothing asked of other hosts."""
    with browser.new_context(accept_downloads=True, permissions=["microphone"], **settings) as context:
        page = context.new_page()
        page.set_default_timeout(30_000)
        visit = Visit(page, address)
        page.on("console", lambda message: visit.troubles.append(message.text))
        page.on("pageerror", lambda error: visit.troubles.append(str(error)))
        page.on("dialog", lambda dialog: visit.troubles.append(dialog.message))
        page.on("request", lambda request: visit.requests.append(request.url))
        visit.open()
        yield visit
        assert visit.troubles == []
        assert {urlsplit(url).netloc for url in visit.requests if not url.startswith(("blob:", "data:"))} == {
            urlsplit(address).netloc
        }


def test_a_word_is_found_and_played_from_the_hit(visit: Visit) -> None:
    visit.search("gradient")
    visit.told("7 hits for “gradient” in 2 recordings")
    assert visit.page.locator(".card h2:visible").all_text_contents() == ["lecture.opus", "podcast.m4a"]
    assert visit.page.locator(".card:first-child .mark").count() == 5
    times = [seconds(text) for text in visit.page.locator(".card:first-child .when").all_text_contents()]
    assert times == sorted(times)
    assert visit.paused  # nothing plays unasked
    visit.chips.first.click()
    visit.plays_after(times[0] - 0.3)
    assert visit.page.get_attribute("#play", "aria-label") == "Pause"
    visit.page.click("#play")
    assert visit.paused
    visit.page.locator(".card").nth(1).locator(".chip").first.click()
    visit.plays_after(18)
    assert visit.page.locator("#player-name").text_content() == "podcast.m4a"
    assert visit.page.locator("[aria-current]").count() == 1


def test_what_browsers_cannot_decode_is_played_all_the_same(visit: Visit) -> None:
    visit.search("whistling")
    visit.told(re.compile("^1 hit"))
    start = seconds(visit.chips.first.locator(".when").text_content())
    visit.chips.first.click()
    playwright.expect(visit.page.locator("#audio")).to_have_attribute("src", re.compile("^api/clip/"))
    playwright.expect(visit.page.locator("#player-time")).to_have_text(re.compile(r"^0:(29|3\d)\."))
    assert start == pytest.approx(28.3, abs=0.3)


def test_time_lines_are_clicked_to_go_there(visit: Visit) -> None:
    visit.search("gradient")
    visit.told(re.compile("7 hits"))
    line = visit.page.locator(".card:first-child .timeline")
    width = line.bounding_box()["width"]
    line.click(position={"x": width * 6.9 / 58, "y": 20})  # on the first hit
    visit.plays_after(6.2)
    assert visit.page.locator("[aria-current] .when").text_content() == "0:06.7"
    line.click(position={"x": width * 0.6, "y": 20})  # where there is none
    visit.plays_after(34)
    assert visit.page.locator("[aria-current]").count() == 0


def test_the_threshold_applies_at_once(visit: Visit) -> None:
    visit.search("gradient")
    visit.told(re.compile("^7 hits"))
    asked = len(visit.requests)
    visit.page.locator("#threshold").fill("80")
    visit.told("6 hits for “gradient” in 2 recordings")
    assert visit.page.locator("#least-shown").text_content() == "80 %"
    assert visit.chips.count() == visit.page.locator(".mark:visible").count() == 6
    visit.page.locator("#threshold").fill("94")
    visit.told("5 hits for “gradient” in 1 recording")
    assert visit.page.locator(".card:visible").count() == 1
    visit.page.locator("#threshold").press("End")
    most = sum(probability >= 0.98 for probability in visit.probabilities("gradient"))
    visit.told(re.compile(f"^{most} hits? for" if most else "^No hit for .*; 7 with a lower one: move the slider"))
    assert visit.page.locator("#least-shown").text_content() == "98 %"
    assert visit.chips.count() == most
    assert not [url for url in visit.requests[asked:] if "/api/find" in url]


def test_a_question_brings_passages_with_times_and_words(visit: Visit) -> None:
    visit.page.fill("#query", "who paid for the telescope?")
    assert visit.page.is_checked("[value=ask]")  # it looks like one
    visit.page.press("#query", "Enter")
    visit.told(re.compile(r"\d passages that may answer, best first"))
    card = visit.page.locator(".card").first
    assert card.locator("h2").text_content() == "council-meeting.mp3"
    assert card.locator(".kind").text_content() == "machine-heard"
    text = card.locator("blockquote").text_content()
    assert text.count(card.locator("blockquote mark").text_content()) == 1  # what is said there varies a little
    assert re.fullmatch(r"0:\d\d–0:\d\d", card.locator(".beside").text_content())
    assert card.locator(".timeline .passage").count() == card.locator(".timeline .best").count() == 1
    words = card.locator(".chip.word").all_text_contents()
    assert any(re.fullmatch(r"telescope0:\d\d\.\d\d\d %", word) for word in words), words
    card.locator(".chip.word", has_text="telescope").first.click()
    visit.plays_after(13)
    assert visit.page.locator("#more").is_enabled()
    card.locator(".chip.play").click()
    visit.plays_after(16.5)
    assert visit.page.locator("#more").is_disabled()  # a passage is too long for an example
    assert not visit.page.is_visible("#threshold")


def test_words_or_a_question_is_a_guess_that_may_be_overruled(visit: Visit) -> None:
    for text, mode in (("gradient", "find"), ("where is the", "ask"), ("where", "find"), ("bread?", "ask")):
        visit.page.fill("#query", text)
        assert visit.page.is_checked(f"[value={mode}]"), text
    visit.page.check("[value=find]", force=True)
    visit.page.fill("#query", "how is the bread?")
    assert visit.page.is_checked("[value=find]")
    visit.page.fill("#query", "")
    visit.page.fill("#query", "how is the bread?")
    assert visit.page.is_checked("[value=ask]")


def test_an_answer_is_written_when_asked_for_and_cites_what_can_be_played(visit: Visit) -> None:
    visit.search("who paid for the telescope?")
    visit.told(re.compile("passages"))
    assert not any("/api/answer" in url for url in visit.requests)  # nothing is sent unasked
    visit.page.click("#answer button")
    text = visit.page.locator("#answer .text")
    line = "The widow of the lighthouse keeper paid 1. <b>Nobody</b> else did 12. See 123 of [2019-2021]."
    playwright.expect(text).to_have_text(line)
    assert text.locator("b").count() == 0
    citations = text.locator("button")
    playwright.expect(citations).to_have_text(["1", "1", "2", "1", "2", "3"])
    citations.first.click()
    visit.plays_after(0)
    assert visit.page.locator("#player-name").text_content() == "council-meeting.mp3"


def test_a_spoken_question_is_answered_too(visit: Visit) -> None:
    visit.page.check("[value=ask]", force=True)
    visit.page.evaluate(STOPPED)
    visit.page.click("#record")
    visit.page.evaluate("stopped")
    visit.told(re.compile("passages"))
    visit.page.click("#answer button.filled")
    playwright.expect(visit.page.locator("#answer .note")).to_contain_text("check it by listening")
    playwright.expect(visit.page.locator("#answer .text")).to_contain_text("lighthouse keeper")


def test_why_there_is_no_answer_is_told_and_it_may_be_asked_for_again(visit: Visit) -> None:
    visit.search("who paid for the telescope?")
    visit.told(re.compile("passages"))
    broken = {"content_type": "text/event-stream", "body": 'event: text\ndata: "The wi"\n\nevent: te'}
    busy = {"status": 503, "json": {"detail": "something else writes to the library"}}
    failed = {**broken, "body": 'event: error\ndata: {"detail": "the model fell over"}\n\n'}
    for reply, line in (
        (broken, "The answer broke off; ask again."),
        (busy, "something else writes to the library"),
        (failed, "the model fell over"),
    ):
        visit.page.route("**/api/answer?*", lambda route, _, reply=reply: route.fulfill(**reply))
        visit.page.click("#answer button.filled")
        playwright.expect(visit.page.locator("#answer .note")).to_have_text(line)
        visit.page.unroute("**/api/answer?*")
    visit.troubles.clear()  # the browser notes that it was refused
    visit.page.click("#answer button.filled")
    playwright.expect(visit.page.locator("#answer .text")).to_contain_text("lighthouse keeper")
    playwright.expect(visit.page.locator("#answer .note")).to_contain_text("check it by listening")


def test_an_answer_that_is_no_longer_wanted_is_left(visit: Visit) -> None:
    visit.search("who paid for the telescope?")
    visit.told(re.compile("passages"))
    visit.page.route("**/api/answer?*", lambda route: None)  # it is not answered
    with visit.page.expect_event("requestfailed", lambda request: "/api/answer" in request.url):
        visit.page.click("#answer button.filled")
        playwright.expect(visit.page.locator("#answer .note")).to_have_text("Writing…")
        visit.search("what is in the bread?")
    visit.told(re.compile("passages"))
    playwright.expect(visit.page.locator("#answer .note")).to_contain_text("A model writes it")
    assert visit.page.is_visible("#answer button.filled")


STOPPED = """() => {
    const button = document.querySelector("#record");
    window.stopped = new Promise((done) => {
        const observer = new MutationObserver(() => {
            if (!/^0:0[1-9]$/.test(button.textContent)) return;
            observer.disconnect();
            done([button.className, button.ariaLabel]);
            button.click();
        });
        observer.observe(button, { subtree: true, childList: true, characterData: true });
    });
}"""  # stops a recording after a second, however long the test is kept from it


def test_a_word_said_to_the_microphone_is_found(visit: Visit) -> None:
    visit.page.evaluate(STOPPED)
    visit.page.click("#record")
    looks, label = visit.page.evaluate("stopped")
    assert "recording" in looks.split() and label == "Stop recording and search"
    visit.told(re.compile("^[1-9].* like your recording in"))
    assert "lecture.opus" in visit.page.locator(".card h2:visible").all_text_contents()
    assert visit.page.locator("#record.recording").count() == 0


def test_a_recording_that_is_cancelled_is_not_sent(visit: Visit) -> None:
    visit.page.click("#record")
    visit.page.wait_for_selector("#record.recording")
    visit.page.keyboard.press("Escape")
    playwright.expect(visit.page.locator("#record.recording")).to_have_count(0)
    assert visit.page.is_hidden("#results")
    assert not any("/api/find" in url for url in visit.requests)


TAPPED = """() => {
    const { mediaDevices } = navigator;
    const open = mediaDevices.getUserMedia.bind(mediaDevices);
    window.streams = [];
    mediaDevices.getUserMedia = async (wanted) => {
        await window.permission;
        window.streams.push(await open(wanted));
        return window.streams.at(-1);
    };
}"""  # notes what the microphone was opened for


def microphone(visit: Visit, expected: list[bool]) -> None:
    """Wait until, of the times that the microphone was opened, these are not closed again."""
    now = "() => streams.map((stream) => stream.getTracks().some((track) => track.readyState === 'live'))"
    deadline = time.monotonic() + 30
    while (opened := visit.page.evaluate(now)) != expected and time.monotonic() < deadline:
        visit.page.wait_for_timeout(50)
    assert opened == expected


def test_a_microphone_that_cannot_be_recorded_from_is_closed(visit: Visit) -> None:
    visit.page.evaluate(TAPPED)
    visit.page.evaluate("() => { window.MediaRecorder = class { constructor() { throw new Error('no'); } }; }")
    for times in (1, 2):
        visit.page.click("#record")
        playwright.expect(visit.page.locator("#trouble")).to_contain_text("The microphone cannot be used")
        microphone(visit, [False] * times)
        assert visit.page.locator("#record.recording").count() == 0


def test_escape_while_the_browser_asks_whether_the_microphone_may_be_used(visit: Visit) -> None:
    visit.page.evaluate(TAPPED)
    visit.page.evaluate("() => { window.permission = new Promise((resolve) => { window.allow = resolve; }); }")
    visit.page.click("#record")
    visit.page.keyboard.press("Escape")
    visit.page.evaluate("allow()")
    microphone(visit, [False])
    assert visit.page.locator("#record.recording").count() == 0
    assert visit.page.is_hidden("#trouble")
    visit.page.click("#record")
    visit.page.wait_for_selector("#record.recording")
    microphone(visit, [False, True])
    visit.page.keyboard.press("Escape")
    microphone(visit, [False, False])
    assert not any("/api/find" in url for url in visit.requests)


def dropped(page: Any, target: str, files: list[tuple[str, bytes]]) -> None:
    """Drag files over the page and drop them on one of the two places that then appear."""
    transfer = page.evaluate_handle(
        """files => {
            const transfer = new DataTransfer();
            for (const [name, bytes] of files) transfer.items.add(new File([new Uint8Array(bytes)], name));
            return transfer;
        }""",
        [[name, list(content)] for name, content in files],
    )
    page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
    page.wait_for_selector("#drop", state="visible")
    page.dispatch_event(f"#drop [data-for={target}] strong", "dragover", {"dataTransfer": transfer})
    page.dispatch_event(f"#drop [data-for={target}] strong", "drop", {"dataTransfer": transfer})


def test_a_sound_file_is_dropped_or_chosen_as_an_example(visit: Visit, folder: Path) -> None:
    spoken = folder / "spoken.wav"
    dropped(visit.page, "search", [("said.wav", spoken.read_bytes())])
    visit.told(re.compile(r"^[1-9].* like said\.wav in"))
    assert visit.page.is_hidden("#drop")
    assert "0:43.2" in visit.page.locator(".when").all_text_contents()
    with visit.page.expect_file_chooser() as chooser:
        visit.page.click("#choose-example")
    chooser.value.set_files(spoken)
    visit.told(re.compile(r"^[1-9].* like spoken\.wav in"))
    question = folder / "question.wav"
    earshot("clip", SAMPLES / "council-meeting.mp3@11.9-14.8", question)
    visit.page.check("[value=ask]", force=True)
    dropped(visit.page, "search", [("question.wav", question.read_bytes())])
    visit.told(re.compile("passages"))
    assert visit.page.locator(".card h2").first.text_content() == "council-meeting.mp3"
    dropped(visit.page, "search", [("notes.txt", b"no sound")])
    playwright.expect(visit.page.locator("#trouble")).to_contain_text("spoken question: not audio")
    assert visit.page.is_hidden("#results")
    visit.troubles.clear()  # the browser notes that it was refused


def test_more_like_a_stretch_that_is_dragged_on_the_waveform(visit: Visit) -> None:
    with visit.page.expect_response("**/api/peaks/*") as drawn:
        visit.search("gradient")
    visit.told(re.compile("7 hits"))
    visit.page.wait_for_selector("#player:visible")
    drawn.value.finished()  # what is drawn then would end a selection
    visit.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    box = visit.page.locator("#waveform").bounding_box()
    start, end = visit.shown
    x = [box["x"] + box["width"] * (moment - start) / (end - start) for moment in (43.3, 43.95)]
    visit.page.mouse.move(x[0], box["y"] + 30)
    visit.page.mouse.down()
    for step in range(1, 6):
        visit.page.mouse.move(x[0] + (x[1] - x[0]) * step / 5, box["y"] + 30)
    visit.page.mouse.up()
    selected = visit.page.locator("#player-selection").text_content()
    first, last = map(seconds, re.fullmatch(r"selected (.*)–(.*)", selected).groups())
    assert first == pytest.approx(43.3, abs=0.05)
    assert last == pytest.approx(43.95, abs=0.05)
    visit.page.click("#more")
    visit.told(re.compile(r"^[1-9].* like lecture\.opus 0:43\.\d\d–0:4[34]\.\d\d in"))
    asked = parse_qs(urlsplit(visit.page.url).query)
    assert float(asked["start"][0]) == pytest.approx(first, abs=0.01)
    times = [seconds(text) for text in visit.page.locator(".card:first-child .when").all_text_contents()]
    assert any(abs(moment - 54.9) < 0.5 for moment in times)  # where it is said once more


PROGRESS = """() => {
    const adding = document.querySelector("#adding");
    window.progressed = false;
    const look = () => { window.progressed ||= adding.querySelector("progress").checkVisibility(); };
    new MutationObserver(look).observe(adding, { subtree: true, childList: true, attributes: true });
}"""  # notes whether progress was shown, however briefly


def test_recordings_are_added_found_in_and_removed(visit: Visit, folder: Path) -> None:
    added = folder / "added.wav"
    earshot("clip", SAMPLES / "lecture.opus@40-50", added)
    visit.page.click("#open-recordings")
    assert visit.page.locator("#recording-list li").count() == 5
    visit.page.evaluate(PROGRESS)
    with visit.page.expect_file_chooser() as chooser:
        visit.page.click("#add")
    chooser.value.set_files([added, Path(__file__)])
    playwright.expect(visit.page.locator("#adding p")).to_have_text("1 recording added.", timeout=120_000)
    assert visit.page.evaluate("progressed")
    assert visit.page.locator("#adding li").text_content().startswith("test_page.py: ")
    assert visit.page.is_hidden("#adding progress")
    assert visit.page.locator("#open-recordings").text_content().startswith("6 recordings")
    visit.troubles.clear()  # the browser notes that one was refused
    visit.search("gradient")
    visit.told("8 hits for “gradient” in 3 recordings")
    visit.page.click("#open-recordings")
    remove = visit.page.locator("#recording-list li", has_text="added.wav").locator("button", has_text="Remove")
    remove.click()
    visit.page.click("#recording-list .sure")
    playwright.expect(visit.page.locator("#recording-list li")).to_have_count(5)
    visit.page.keyboard.press("Escape")
    visit.page.reload()
    visit.told("7 hits for “gradient” in 2 recordings")


def test_one_of_many_recordings_is_found_by_its_name(visit: Visit) -> None:
    assert visit.page.locator("#filter").count() == 1
    visit.page.click("#open-recordings")
    assert visit.page.is_hidden("#filter")  # five are seen at a glance
    row = {"name": "", "seconds": 61, "speech_seconds": 40}
    rows = [{"id": n, "recording": f"talks/Talk-{n:03}.opus", **row} for n in range(1, 301)]
    rows[6] = {"id": 7, "recording": "silence.wav", "name": "silence.wav", "seconds": 5, "speech_seconds": 0}
    visit.page.route("**/api/recordings", lambda route: route.fulfill(json=rows))
    visit.open()
    visit.page.click("#open-recordings")
    listed = visit.page.locator("#recording-list li")
    assert listed.count() == 300
    visit.page.fill("#filter", "talk-29")
    playwright.expect(listed).to_have_count(10)
    assert listed.first.locator("p").text_content() == "talks/ · 1.0 min"
    visit.page.fill("#filter", " silence")
    playwright.expect(listed).to_have_count(1)
    assert listed.locator("p").text_content() == "5 s · no speech"
    visit.page.fill("#filter", "zzyzxq")
    playwright.expect(listed).to_have_text("None is called that.")
    visit.page.click("#recordings .close")
    visit.page.click("#open-recordings")
    playwright.expect(listed).to_have_count(300)


def test_what_another_page_adds_is_followed_to_its_end(visit: Visit) -> None:
    state = {**visit.page.request.get(f"{visit.address}api/indexing").json(), "failures": []}
    running = {**state, "running": True, "seconds": 30, "expected_seconds": 60, "hearing": False}
    visit.page.route("**/api/indexing/events", lambda route: route.abort())  # proxies break streams off
    visit.page.route("**/api/indexing", lambda route: route.fulfill(json=running))
    visit.page.reload()
    line = visit.page.locator("#adding p")
    playwright.expect(line).to_have_text("Listening, for sounds: 0:30 of 1:00")
    running.update(seconds=15, hearing=True)
    playwright.expect(line).to_have_text("Listening, for words: 0:15 of 1:00")
    assert visit.page.is_visible("#adding progress")
    running.update(running=False)
    playwright.expect(line).to_have_text("Nothing new was added.")


def test_hits_that_are_shown_are_exported(visit: Visit) -> None:
    visit.search("gradient")
    visit.told(re.compile("7 hits"))
    visit.page.locator("#threshold").fill("94")
    visit.told(re.compile("^5 hits"))

    def exported(kind: str) -> tuple[str, bytes]:
        with visit.page.expect_download() as download:
            visit.page.click(f"[data-format={kind}]")
        return download.value.suggested_filename, Path(download.value.path()).read_bytes()

    name, content = exported("csv")
    assert name == "hits.csv"
    rows = list(csv.DictReader(io.StringIO(content.decode())))
    assert len(rows) == 5
    assert {row["query"] for row in rows} == {"gradient"}
    assert all(float(row["probability"]) >= 0.94 for row in rows)
    name, content = exported("srt")
    assert name == "hits.srt"
    assert content.decode().count(" --> ") == 5
    name, content = exported("zip")
    assert name == "hits.zip"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert len(archive.namelist()) == 5
        assert all(archive.read(name).startswith(b"RIFF") for name in archive.namelist())
    with visit.page.expect_download() as download:
        visit.page.click("#save")
    assert download.value.suggested_filename.endswith(".wav")
    assert Path(download.value.path()).read_bytes().startswith(b"RIFF")


def test_keys(visit: Visit) -> None:
    visit.page.keyboard.press("/")
    visit.page.keyboard.type("gradient")  # letters that are keys elsewhere
    visit.page.keyboard.press("Enter")
    visit.told(re.compile("7 hits"))

    def current() -> str:
        return str(visit.page.locator("[aria-current] .when").text_content())

    assert current() == "0:43.4"
    visit.page.keyboard.press("n")
    assert current() == "0:54.9"
    visit.plays_after(54.5)
    visit.page.keyboard.press("j")
    assert visit.page.locator("#player-name").text_content() == "podcast.m4a"
    visit.page.keyboard.press("p")
    visit.page.keyboard.press("k")
    assert current() == "0:43.4"
    visit.plays_after(43)
    visit.page.keyboard.press(" ")
    assert visit.paused
    before = visit.time
    visit.page.keyboard.press("ArrowLeft")
    assert visit.time == pytest.approx(before - 1, abs=0.1)
    visit.page.keyboard.press("[")
    visit.page.keyboard.press("ArrowRight")
    visit.page.keyboard.press("]")
    first, last = map(
        seconds, visit.page.locator("#player-selection").text_content().removeprefix("selected ").split("–")
    )
    assert (first, last) == (pytest.approx(before - 1, abs=0.1), pytest.approx(before, abs=0.1))
    visit.page.keyboard.press("?")
    assert visit.page.is_visible("#keys")
    visit.page.keyboard.press("Escape")
    assert visit.page.is_hidden("#keys")
    visit.page.keyboard.press("m")
    visit.told(re.compile("like lecture.opus"))


def test_a_step_in_the_moment_that_the_sound_arrives_is_not_lost(visit: Visit) -> None:
    visit.search("gradient")
    visit.told(re.compile("7 hits"))
    visit.page.keyboard.press("n")
    visit.plays_after(54.5)
    second = visit.page.locator(".card").nth(1).locator(".when").nth(1).text_content()
    visit.page.evaluate("""() => {
        const press = (key) => document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
        const onAndPause = () => ["n", " "].forEach(press);
        document.addEventListener("loadedmetadata", onAndPause, { capture: true, once: true });
    }""")
    visit.page.keyboard.press("n")
    playwright.expect(visit.page.locator("[aria-current] .when")).to_have_text(second)
    assert visit.paused
    assert visit.time == pytest.approx(seconds(second) - 0.3, abs=0.1)


def test_links_and_back_work(visit: Visit) -> None:
    visit.search("gradient")
    visit.told(re.compile("^7 hits"))
    assert visit.page.title() == "gradient – Earshot"
    visit.search("who paid for the telescope?")
    visit.told(re.compile("passages"))
    assert parse_qs(urlsplit(visit.page.url).query) == {"mode": ["ask"], "q": ["who paid for the telescope?"]}
    visit.page.go_back()
    visit.told(re.compile("^7 hits for “gradient”"))
    assert visit.page.input_value("#query") == "gradient"
    visit.page.go_back()
    playwright.expect(visit.page.locator("h1")).to_be_visible()
    assert visit.page.is_hidden("#results")
    assert visit.page.is_hidden("#player")
    visit.open("?mode=ask&q=telescope")
    visit.told(re.compile("passages"))
    assert visit.page.is_checked("[value=ask]")


def test_back_from_a_search_that_goes_on_ends_it(visit: Visit) -> None:
    visit.page.route("**/api/find?*", lambda route: None)  # it is not answered
    with visit.page.expect_request("**/api/find?*"):
        visit.search("gradient")
    playwright.expect(visit.page.locator("#results[aria-busy=true]")).to_have_count(1)
    visit.page.go_back()
    playwright.expect(visit.page.locator("#start")).to_be_visible()
    playwright.expect(visit.page.locator("#results[aria-busy=true], body.busy")).to_have_count(0)
    visit.page.unroute("**/api/find?*")
    visit.page.go_forward()
    visit.told(re.compile("7 hits"))


def test_a_search_that_takes_long_is_told_of(visit: Visit) -> None:
    visit.page.clock.install(time=0)
    visit.open()
    visit.page.clock.pause_at(3_600_000)
    told = visit.page.get_by_role("status").filter(has_text="Searching…")
    waiting: list[Any] = []
    visit.page.route("**/api/find?*", lambda route: waiting.append(route))
    with visit.page.expect_request("**/api/find?*"):
        visit.search("gradient")
    visit.page.clock.run_for(290)
    assert told.count() == 0
    visit.page.clock.run_for(20)
    playwright.expect(told).to_be_visible()
    waiting.pop().continue_()
    visit.told(re.compile("7 hits"))
    assert told.count() == 0


def test_a_name_that_holds_html_is_text(visit: Visit) -> None:
    visit.search("falcon")
    visit.told(re.compile("^1 hit"))
    assert visit.page.locator(".card h2").text_content() == MARKUP
    assert visit.page.locator("#player-name").text_content() == MARKUP
    visit.page.click("#open-recordings")
    assert MARKUP in visit.page.locator("#recording-list .name").all_text_contents()
    assert visit.page.locator("main img, dialog img, #player img").count() == 0
    visit.page.locator("#recording-list .name", has_text="notes").click()
    visit.plays_after(0)
    visit.search("<i>falcon</i>")
    visit.told(re.compile("“<i>falcon</i>”"))
    assert visit.page.locator("main i").count() == 0


def test_what_cannot_be_searched_for_is_told_in_one_line(visit: Visit) -> None:
    visit.search("gradient")
    visit.told(re.compile("7 hits"))
    visit.chips.first.click()
    visit.plays_after(6)
    visit.search("?!")
    playwright.expect(visit.page.locator("#trouble")).to_be_visible()
    assert "\n" not in visit.page.locator("#trouble").text_content()
    assert visit.page.is_hidden("#results")
    assert visit.page.is_hidden("#player")
    assert visit.paused
    visit.page.locator("#query").blur()
    visit.page.keyboard.press("n")  # there is no hit to go to
    assert visit.page.is_hidden("#player")
    assert visit.paused
    visit.troubles.clear()  # the browser notes that it was refused
    visit.search("gradient")
    visit.told(re.compile("7 hits"))
    assert visit.page.is_hidden("#trouble")


def test_a_library_that_is_busy_or_damaged_is_not_taken_for_an_empty_one(visit: Visit) -> None:
    visit.page.route("**/api/find?*", lambda route: route.fulfill(status=503, json={"detail": "it is busy"}))
    visit.search("gradient")
    playwright.expect(visit.page.locator("#trouble")).to_have_text("it is busy")
    assert visit.page.is_hidden("#empty")
    visit.page.route("**/api/recordings", lambda route: route.fulfill(status=503, json={"detail": "it is damaged"}))
    visit.page.reload()
    playwright.expect(visit.page.locator("#trouble")).to_have_text("it is damaged")
    assert visit.page.is_hidden("#empty")
    visit.troubles.clear()  # the browser notes that it was refused


def test_what_was_not_said_is_not_shown_and_not_exported(visit: Visit) -> None:
    visit.page.locator("#threshold").evaluate("slider => { slider.value = 60; }")
    visit.search("zzyzxq")
    less = len(visit.probabilities("zzyzxq"))
    assert less
    visit.told(f"No hit for “zzyzxq” with this probability; {less} with a lower one: move the slider.")
    assert visit.page.is_hidden("#export")
    assert visit.page.is_hidden("#player")
    visit.page.locator("#threshold").fill("2")
    visit.told(re.compile(f"^{less} hits? for “zzyzxq”"))
    assert visit.page.is_visible("#export")
    visit.page.locator("#threshold").fill("60")
    assert visit.page.is_hidden("#export")
    visit.search("counterrevolutionary")
    visit.told("No hit for “counterrevolutionary”.")
    assert visit.page.is_hidden("#export")
    assert visit.page.is_hidden("#threshold")


@pytest.mark.parametrize(
    "settings", [{"viewport": {"width": 375, "height": 667}, "has_touch": True, "is_mobile": True}]
)
def test_on_a_phone_all_is_within_reach(visit: Visit) -> None:
    def fits() -> None:
        assert visit.page.evaluate("document.documentElement.scrollWidth") == 375
        targets = visit.page.evaluate("""() => [...document.querySelectorAll("button, a, label, [type=range]")]
            .map(target => [target.outerHTML.slice(0, 80), target.getBoundingClientRect().toJSON()])""")
        for what, box in targets:
            if box["width"]:  # it is shown
                assert box["height"] >= 43.9, what
                assert box["left"] >= 0 and box["right"] <= 375, what

    fits()
    assert visit.page.evaluate("""() => {
        const box = document.querySelector("#query"), pen = document.createElement("canvas").getContext("2d");
        const style = getComputedStyle(box);
        pen.font = style.font;
        return pen.measureText(box.placeholder).width < box.clientWidth - parseFloat(style.paddingLeft);
    }"""), "the placeholder is cut"
    visit.search("gradient")
    visit.told(re.compile("7 hits"))
    fits()
    export = visit.page.locator("#export")
    assert export.is_visible()
    assert export.bounding_box()["y"] < visit.page.locator(".card").first.bounding_box()["y"]
    with visit.page.expect_download() as download:
        visit.page.tap("[data-format=csv]")
    assert download.value.suggested_filename == "hits.csv"
    visit.chips.first.tap()
    visit.plays_after(6)
    visit.page.locator(".card").last.scroll_into_view_if_needed()
    visit.search("who paid for the telescope?")
    visit.told(re.compile("passages"))
    fits()
    visit.page.tap("#open-recordings")
    fits()


def luminance(visit: Visit, selector: str, what: str) -> float:
    color = visit.page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).{what}")
    return sum(map(int, re.findall(r"\d+", color)[:3])) / 3 / 255


@pytest.mark.parametrize("settings", [{"color_scheme": "dark"}, {"color_scheme": "light"}])
def test_dark_and_light(visit: Visit, settings: dict[str, Any]) -> None:
    visit.search("gradient")
    visit.told(re.compile("7 hits"))
    dark = settings["color_scheme"] == "dark"
    for selector in ("body", ".card", "#player"):
        assert (luminance(visit, selector, "backgroundColor") < 0.2) == dark
        assert (luminance(visit, selector, "color") > 0.8) == dark


@pytest.mark.parametrize("settings", [{"color_scheme": "dark"}, {"color_scheme": "light"}])
def test_axe_finds_nothing_that_is_hard_to_use(visit: Visit) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")

    def accessible() -> None:
        found = axe.Axe().run(visit.page).response["violations"]
        assert not found, [(rule["id"], [node["html"][:100] for node in rule["nodes"]]) for rule in found]

    accessible()
    visit.search("gradient")
    visit.told(re.compile("7 hits"))
    accessible()
    visit.search("who paid for the telescope?")
    visit.told(re.compile("passages"))
    accessible()
    visit.page.click("#open-recordings")
    accessible()


def test_a_library_without_recordings_invites_to_add_some(browser: Any, folder: Path) -> None:
    process, address = served(folder / "empty")
    try:
        page = browser.new_page()
        page.goto(address)
        playwright.expect(page.locator("#open-recordings")).to_have_text("Add recordings")
        page.click("#open-recordings")
        playwright.expect(page.locator("#held")).to_contain_text("None yet")
        page.keyboard.press("Escape")
        invitation = page.locator("#empty")
        playwright.expect(invitation).to_contain_text("No recordings yet.")
        page.fill("#query", "gradient")
        with page.expect_response("**/api/find?*") as refused:
            page.press("#query", "Enter")
        assert refused.value.status == 503
        playwright.expect(page.locator("body.busy")).to_have_count(0)
        playwright.expect(invitation).to_be_visible()
        assert page.is_hidden("#trouble")
        page.route("**/api/find?*", lambda route: route.fulfill(json=[]))  # as where all were taken out
        page.press("#query", "Enter")
        playwright.expect(page.locator("body.busy")).to_have_count(0)
        playwright.expect(invitation).to_be_visible()
        assert page.is_hidden("#results")
        with page.expect_file_chooser() as chooser:
            invitation.locator("button").click()
        chooser.value.set_files(SAMPLES / "field-notes.ogg")
        playwright.expect(page.locator("#adding p")).to_have_text("1 recording added.", timeout=120_000)
        playwright.expect(invitation).to_be_hidden()
        page.close()
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_the_token_is_asked_for_and_opens_the_page(browser: Any, folder: Path) -> None:
    process, address = served(folder / "locked", "--token", "pa ss&wörd")
    try:
        with browser.new_context() as context:
            page = context.new_page()
            page.goto(urlsplit(address)._replace(query="").geturl())
            playwright.expect(page.locator("p")).to_contain_text("wants a token")
            page.get_by_label("Token").fill("wrong")
            page.keyboard.press("Enter")
            playwright.expect(page.locator("p")).to_contain_text("not the token")
            page.get_by_label("Token").fill("pa ss&wörd")
            page.click("button")
            playwright.expect(page.locator("#open-recordings")).to_have_text("Add recordings")
            assert "token" not in page.url
    finally:
        process.terminate()
        process.communicate(timeout=60)
