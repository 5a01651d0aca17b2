"""Answers from a model: what is sent to a real server on loopback, what comes back, and all that may go wrong there."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Talk

import earshot
from earshot import cli
from earshot.answer import CONNECTING, LONGEST_TEXT, MOST, Endpoint, answer, clip_of
from earshot.api import Library
from earshot.audio import SAMPLE_RATE
from earshot.types import Answer, AnswerError, AudioError, Clip, GoneError, Hit, Passage, QueryError, Recording, Span

SAMPLES = Path(__file__).parents[1] / "samples"
KEY = "sk-secret-0123456789"
Reply = Callable[[BaseHTTPRequestHandler], None]


def event(text: str | None = None, **choice: object) -> bytes:
    piece = {"choices": [{"index": 0, "delta": {} if text is None else {"content": text}, **choice}]}
    return f"data: {json.dumps(piece, ensure_ascii=False)}\n\n".encode()


DONE = b"data: [DONE]\n\n"


def streams(*parts: bytes | threading.Event, kind: str = "text/event-stream") -> Reply:
    """Send parts one by one; wait at an event until the test goes on."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.end_headers()
        for part in parts:
            if isinstance(part, bytes):
                handler.wfile.write(part)
            else:
                assert part.wait(60)

    return reply


def says(*pieces: str) -> Reply:
    return streams(b": comment\n\n", event(""), *map(event, pieces), event(finish_reason="stop"), DONE)


def refuses(status: int, body: object = "", **headers: str) -> Reply:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write((body if isinstance(body, str) else json.dumps(body)).encode())

    return reply


@dataclass
class Model:
    """A server that speaks OpenAI's chat completions: gives its replies in turn, and keeps what it was sent."""

    url: str
    replies: list[Reply] = field(default_factory=list)
    sent: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)

    @property
    def body(self) -> dict[str, Any]:
        ((_, _, body),) = self.sent
        return body

    @property
    def content(self) -> Any:
        (message,) = self.body["messages"]
        assert message["role"] == "user"
        return message["content"]


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # whoever asked went away


@pytest.fixture
def serve() -> Iterator[Callable[[], Model]]:
    with ExitStack() as stack:

        def start() -> Model:
            class Handler(BaseHTTPRequestHandler):
                def do_POST(self) -> None:
                    body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                    model.sent.append((self.path, dict(self.headers), body))
                    model.replies.pop(0)(self)

                def log_message(self, *arguments: object) -> None:
                    pass

            server = stack.enter_context(Server(("127.0.0.1", 0), Handler))
            model = Model(f"http://127.0.0.1:{server.server_port}")
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            stack.callback(server.shutdown)
            return model

        yield start


@pytest.fixture
def model(serve: Callable[[], Model]) -> Model:
    return serve()


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("EARSHOT_ENDPOINT", "EARSHOT_MODEL", "EARSHOT_API_KEY", "EARSHOT_LIBRARY", "EARSHOT_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # whoever takes it finds nobody there
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.chdir(tmp_path)


def passage(path: object, start: float, end: float, best: tuple[float, float] | None = None, **more: Any) -> Passage:
    recording = more.pop("recording", Recording(1, str(path), 100.0, 80.0))
    told = {"text": "what is said", "best_text": "is said"} | more
    return Passage(recording, start, end, 0.5, best=Span(*best or (start, end)), **told)


TWO = [
    passage("/home/me/talks/a.mp3", 9.0, 39.5, text="the terrorist coat\nwas paid", heard=True),
    passage("/home/me/b\n.wav", 61.25, 70.0, text="I paid for it.", heard=False),
]


def ask(endpoint: Endpoint, passages: list[Passage] = TWO, question: str | Clip = "who paid?") -> tuple[str, Answer]:
    *pieces, last = answer(question, passages, endpoint)
    assert isinstance(last, Answer) and last.text == "".join(map(str, pieces))
    return last.text, last


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("", "/v1/chat/completions"),
        ("/", "/v1/chat/completions"),
        ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/chat/completions/", "/chat/completions"),
        ("/api", "/api/v1/chat/completions"),
        ("/v1beta/openai", "/v1beta/openai/chat/completions"),
        ("/v1?api-version=2", "/v1/chat/completions?api-version=2"),
    ],
)
def test_an_endpoint_is_named_with_or_without_its_path(model: Model, given: str, path: str) -> None:
    model.replies = [says("Me.")]
    ask(Endpoint(model.url + given))
    assert [sent[0] for sent in model.sent] == [path]


def test_the_request_holds_question_texts_numbers_names_and_times(model: Model) -> None:
    model.replies = [says("Me [2].")]
    hit = Hit(TWO[0].recording, 13.75, 14.3, 0.7, 0.99, "telescope")
    ask(Endpoint(model.url, "llama", KEY), [replace(TWO[0], words=(hit,)), TWO[1]])
    ((_, headers, body),) = model.sent
    assert headers["Authorization"] == f"Bearer {KEY}" and KEY not in json.dumps(body)
    assert (body["model"], body["stream"]) == ("llama", True)
    prompt, first, second, question = model.content.split("\n\n")
    assert "cite" in prompt and "[1]" in prompt and "do not tell" in prompt and "machine-heard" in prompt
    assert first.splitlines()[:2] == ["[1] a.mp3, 9.0 s to 39.5 s, machine-heard:", "the terrorist coat was paid"]
    assert first.splitlines()[2].endswith(": telescope at 13.8 s (0.99)")
    assert second == "[2] b .wav, 61.2 s to 70.0 s, transcript:\nI paid for it."
    assert question == "Question: who paid?"
    assert "/home/me" not in json.dumps(body)  # where files lie is nobody's business


def test_no_key_and_no_model_are_sent_where_there_are_none(model: Model) -> None:
    model.replies = [says("Me.")]
    ask(Endpoint(model.url), TWO[1:])
    ((_, headers, body),) = model.sent
    assert "Authorization" not in headers and "model" not in body and "machine-heard" not in model.content


def pcm(path: Path) -> np.ndarray[Any, np.dtype[np.int16]]:
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def clips(content: list[dict[str, Any]]) -> list[np.ndarray[Any, np.dtype[np.int16]]]:
    found = []
    for part in content:
        if part["type"] == "input_audio":
            assert part["input_audio"]["format"] == "wav"
            with wave.open(io.BytesIO(base64.b64decode(part["input_audio"]["data"], validate=True))) as file:
                assert file.getparams()[:3] == (1, 2, SAMPLE_RATE)
                found.append(np.frombuffer(file.readframes(file.getnframes()), "<i2"))
    return found


def test_the_request_holds_the_clips_of_the_passages(model: Model, talk: Talk) -> None:
    """All of a short passage; of a long one the 30 s around its best, and no more than the recording has."""
    model.replies = [says("[1] and [3]")]
    short, long = talk("talks/a.wav", 6), talk("talks/b.wav", 60, seed=1)  # 6.5 s and 60.5 s
    seconds = len(pcm(long)) / SAMPLE_RATE
    recording = Recording(2, str(long), seconds, 30.0)
    passages = [
        passage(short, 1.0, 4.25),
        passage(long, 5.0, 45.0, (28.0, 32.0), recording=recording),
        passage(long, 21.0, seconds + 0.5, (55.0, 60.0), recording=recording),
        passage(long, 2.0, 42.0, (2.0, 12.0), recording=recording),
    ]
    spans = [(short, 1.0, 4.25), (long, 15.0, 45.0), (long, seconds - 30, seconds), (long, 2.0, 32.0)]
    _, told = ask(Endpoint(model.url, sends="audio"), passages)
    sent = clips(model.content)
    assert [(Path(c.path), c.start, c.end) for c in map(clip_of, passages)] == spans
    for samples, (path, start, end) in zip(sent, spans, strict=True):
        there = pcm(path)[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
        assert len(samples) == len(there) and np.abs(samples.astype(int) - there).max() <= 1
    texts = [part["text"] for part in model.content if part["type"] == "text"]
    assert texts[1:] == [
        "[1] a.wav, 1.0 s to 4.2 s",
        "[2] b.wav, 15.0 s to 45.0 s",
        "[3] b.wav, 30.5 s to 60.5 s",
        "[4] b.wav, 2.0 s to 32.0 s",
        "Question: who paid?",
    ]
    assert [part["type"] for part in model.content] == ["text", *["text", "input_audio"] * 4, "text"]
    assert [(c.number, c.start, c.end) for c in told.citations] == [(1, 1.0, 4.25), (3, *spans[2][1:])]


def test_a_spoken_question_goes_to_models_that_hear(model: Model, talk: Talk) -> None:
    question, path = talk("question.wav", 2, seed=3), talk("a.wav", 6)
    model.replies = [says("Me.")]
    ask(Endpoint(model.url, sends="audio"), [passage(path, 1.0, 3.0)], Clip(str(question)))
    assert len(clips(model.content)[-1]) == len(pcm(question)) and "spoken" in model.content[-2]["text"]
    with pytest.raises(QueryError, match="--send audio"):
        ask(Endpoint(model.url), question=Clip(str(question)))
    assert len(model.sent) == 1


def test_requests_are_bounded(model: Model, talk: Talk) -> None:
    model.replies = [says("[40] [41]"), says("[10] [11]")]
    told = ask(Endpoint(model.url), [passage("a.wav", 0.0, 9.0, text="x" * 9 * LONGEST_TEXT)] * 99)[1]
    assert (told.citations[0].number, told.unknown) == (MOST["text"], (41,))
    assert len(model.content) < (MOST["text"] + 1) * LONGEST_TEXT
    path = talk("a.wav", 2)
    model.sent.clear()
    told = ask(Endpoint(model.url, sends="audio"), [passage(path, 0.0, 2.0)] * 99)[1]
    assert len(clips(model.content)) == MOST["audio"] and told.unknown == (11,)


def test_a_recording_that_is_gone_is_named_and_nothing_is_sent(model: Model) -> None:
    with pytest.raises(AudioError, match=r"gone\.wav.*no such file"):
        ask(Endpoint(model.url, sends="audio"), [passage("gone.wav", 0.0, 2.0)])
    with pytest.raises(AnswerError, match="no passages"):
        ask(Endpoint(model.url), [])
    assert model.sent == []


def test_an_answer_arrives_piece_by_piece(model: Model) -> None:
    """The server goes on only when the piece before has arrived."""
    gates = threading.Event(), threading.Event()
    first = event("The widow ")
    model.replies = [streams(first[:9], first[9:], gates[0], event("paid"), gates[1], event(" [1]."), DONE)]
    pieces = answer("who paid?", TWO, Endpoint(model.url))
    assert next(pieces) == "The widow "
    gates[0].set()
    assert next(pieces) == "paid"
    gates[1].set()
    assert next(pieces) == " [1]."
    last = next(pieces)
    assert isinstance(last, Answer) and last.text == "The widow paid [1]."
    assert next(pieces, None) is None


@pytest.mark.parametrize(
    "reply",
    [
        streams(event("Zoë\u2028[1]").replace(b"\n", b"\r\n"), b'data:{"choices": [], "usage": {}}\n\n', DONE),
        streams(event("Zoë\u2028[1]", finish_reason="stop")),
        streams(event("Zoë\u2028[1]"), DONE.rstrip()),
        streams(event("Zo\x1b"), event(None), event("ë\x00\u2028[1]"), DONE),
        streams(
            json.dumps({"choices": [{"message": {"role": "assistant", "content": "Zoë\u2028[1]"}}]}).encode(),
            kind="application/json",
        ),
    ],
)
def test_dialects_of_the_protocol(model: Model, reply: Reply) -> None:
    model.replies = [reply]
    assert ask(Endpoint(model.url))[0] == "Zoë\u2028[1]"


@pytest.mark.parametrize(
    ("text", "known", "unknown"),
    [
        ("Me [2]. You [1][2].", [2, 1], []),
        ("Me [1, 2], [1; 7] and [0].", [1, 2], [7, 0]),
        ("Both [1-2], [Passage 2], 【1†source】.", [1, 2], []),
        ("All [passages 1 and 2] [2-4].", [1, 2], [3, 4]),
        ("In [1973], [sic], a[i], [] and [1.5]", [], []),
        ("[" + "9" * 50 + "] [1-999999]", [], []),
    ],
)
def test_citations_are_of_passages_that_exist(model: Model, text: str, known: list[int], unknown: list[int]) -> None:
    model.replies = [says(*text)]
    said, told = ask(Endpoint(model.url))
    assert said == text
    assert [(c.number, c.recording, c.start, c.end) for c in told.citations] == [
        (n, TWO[n - 1].recording, TWO[n - 1].start, TWO[n - 1].end) for n in known
    ]
    assert list(told.unknown) == unknown


OPENAI = {"error": {"message": f"Incorrect API key\nprovided: {KEY}\x1b[31m", "type": "x"}}
TALK: dict[str, tuple[Reply, str]] = {
    "401": (refuses(401, OPENAI), "the key in EARSHOT_API_KEY is refused (401) (Incorrect API key provided: ...[31m)"),
    "403": (refuses(403, "<html>no"), "the key in EARSHOT_API_KEY is refused (403)"),
    "404": (
        refuses(404, {"error": "model 'x' not found"}),
        "no such address, or no model 'llama' (404) (model 'x' not",
    ),
    "400": (refuses(400, {"detail": [{"msg": "bad"}]}), "the request is refused; check --model, or send less with"),
    "429": (refuses(429, Retry_After="3600"), "too many requests; try again in 3600 s (429)"),
    "500": (refuses(500, {"message": "out of memory"}), "the server failed; try again later (500) (out of memory)"),
    "503": (refuses(503, "x" * (2 << 20)), "replied with more than 1 MB (503)"),
    "not HTTP": (lambda handler: handler.wfile.write(b"SSH-2.0-x\r\n") and None, "the connection broke; try again"),
    "nothing": (lambda handler: None, "the connection broke; try again"),
    "a page": (streams(b"<html>hello</html>", kind="text/html"), "the reply cannot be read; is it an OpenAI"),
    "not JSON": (streams(b"data: hello\n\n"), "the reply cannot be read"),
    "deep JSON": (streams(b"data: " + b"[" * 200_000 + b"\n\n"), "the reply cannot be read"),
    "other JSON": (streams(b'data: {"choices": 1}\n\n'), "the reply cannot be read"),
    "odd pieces": (streams(event("a", delta={"content": [1]})), "the reply cannot be read"),
    "no end of line": (streams(b"data: " + b"x" * (2 << 20)), "sent an event without an end"),
    "empty": (says(), "the model answered nothing; try again"),
    "blank": (says(" ", "\n"), "the model answered nothing; try again"),
    "empty stream": (streams(), "the answer broke off before its end"),
    "an error": (streams(b'data: {"error": {"message": "no memory"}}\n\n'), "the server failed on the way (no memory)"),
    "stopped": (streams(event("The", finish_reason="length")), "is not whole: the model was stopped (length)"),
    "on and on": (streams(*[event("la " * 10_000)] * 9), "the answer does not come to an end"),
}


@pytest.mark.parametrize("what", TALK)
def test_what_goes_wrong_is_one_line_without_the_key(model: Model, what: str) -> None:
    reply, told = TALK[what]
    model.replies = [reply]
    with pytest.raises(AnswerError) as error:
        ask(Endpoint(model.url, "llama", KEY))
    line = str(error.value)
    assert line.startswith(f"{model.url}/v1/chat/completions: ") and told in line
    assert "\n" not in line and "\x1b" not in line and KEY not in line and len(line) < 400
    assert len(model.sent) == 1


def test_the_advice_fits_what_was_sent(model: Model, talk: Talk) -> None:
    model.replies = [refuses(401), refuses(422), refuses(404)]
    with pytest.raises(AnswerError, match="a key is needed: set EARSHOT_API_KEY"):
        ask(Endpoint(model.url))
    with pytest.raises(AnswerError, match="can the model hear"):
        ask(Endpoint(model.url, sends="audio"), [passage(talk("a.wav", 2), 0.0, 2.0)])
    with pytest.raises(AnswerError, match=r"no model named \(--model\)"):
        ask(Endpoint(model.url))


def test_who_is_asked_to_come_back_soon_does_so_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("earshot.answer.time.sleep", waits.append)
    model.replies = [refuses(429, Retry_After="2"), says("Me.")]
    assert ask(Endpoint(model.url))[0] == "Me."
    model.replies = [refuses(429), refuses(429), says("Me.")]
    with pytest.raises(AnswerError, match="too many requests; try again later"):
        ask(Endpoint(model.url))
    assert waits == [2, 1] and len(model.sent) == 4


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(serve: Callable[[], Model], status: int) -> None:
    here, there = serve(), serve()
    here.replies = [refuses(status, Location=f"{there.url}/v1/chat/completions?key={KEY}")]
    there.replies = [says("Me.")]
    with pytest.raises(AnswerError, match=f"redirects elsewhere.*{there.url}") as error:
        ask(Endpoint(here.url, key=KEY))
    assert KEY not in str(error.value) and there.sent == []


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["<think>who", " paid?</think>\n\nThe widow", " [1]."], "The widow [1]."),
        (["\n", "<th", "ink>", "x", "</thi", "nk>", "Nobody."], "Nobody."),
        (["<th", "ree>"], "<three>"),
        (["No <think>", "x</think>"], "No <think>x</think>"),
    ],
)
def test_what_a_model_thinks_first_is_no_part_of_its_answer(model: Model, pieces: list[str], text: str) -> None:
    model.replies = [says(*pieces)]
    assert ask(Endpoint(model.url))[1].text == text


def test_a_model_that_only_thinks_has_answered_nothing(model: Model) -> None:
    model.replies = [says("<think>who", " paid?")]
    with pytest.raises(AnswerError, match="answered nothing"):
        ask(Endpoint(model.url))


def test_what_came_before_a_break_stays(model: Model) -> None:
    def chunked(handler: BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        piece = event("The widow")
        handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        handler.close_connection = True

    for reply, told in ((streams(event("The widow")), "broke off"), (chunked, "not whole: the connection broke")):
        model.replies = [reply]
        pieces = answer("who paid?", TWO, Endpoint(model.url))
        assert next(pieces) == "The widow"
        with pytest.raises(AnswerError, match=told):
            next(pieces)


def test_silence_between_pieces_and_before_them(model: Model) -> None:
    gate = threading.Event()
    model.replies = [streams(event("The"), gate), lambda handler: gate.wait(60) and None]
    pieces = answer("who paid?", TWO, Endpoint(model.url, timeout=2))
    assert next(pieces) == "The"
    with pytest.raises(AnswerError, match=r"not whole: said nothing for 2 s; .*--timeout"):
        next(pieces)
    with pytest.raises(AnswerError, match=r"completions: said nothing for 0\.2 s"):
        ask(Endpoint(model.url, timeout=0.2))
    gate.set()


def test_nobody_there_and_nobody_who_picks_up() -> None:
    with socket.socket() as listener, ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        endpoint = Endpoint(f"http://127.0.0.1:{port}", timeout=0.3)
        with pytest.raises(AnswerError, match=r"cannot be reached; is it running.*refused"):
            ask(endpoint)
        listener.listen(0)
        for _ in range(4):  # more than the queue holds: the next one gets no reply
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        began = time.monotonic()
        with pytest.raises(AnswerError, match="cannot be reached: no reply"):
            ask(endpoint)
        assert time.monotonic() - began < CONNECTING
    with pytest.raises(AnswerError, match="cannot be reached"):
        ask(Endpoint("http://localhost:1/v1"))


@pytest.mark.parametrize(
    ("url", "key", "told"),
    [
        ("localhost:11434", None, "is no address"),
        ("ftp://host/v1", None, "is no address"),
        ("http://", None, "is no address"),
        ("http://host:port", None, "is no address"),
        ("http://[::1", None, "is no address"),
        ("http://host/\n", None, "is no address"),
        (f"https://me:{KEY}@host/v1", None, "holds a password"),
        ("http://example.org/v1", KEY, "not sent unencrypted"),
        ("http://127.0.0.1.example.org", KEY, "not sent unencrypted"),
        ("http://10.0.0.1:8000", KEY, "not sent unencrypted"),
        ("https://example.org", "sk-ab\nX-Evil: 1", "characters that no key has"),
        ("https://example.org", "sk-ключ", "characters that no key has"),
    ],
)
def test_endpoints_that_are_none(url: str, key: str | None, told: str) -> None:
    with pytest.raises(AnswerError, match=told) as error:
        Endpoint(url, key=key)
    assert not key or (key not in str(error.value) and "sk-" not in str(error.value))
    assert KEY not in str(error.value)


def test_endpoints_do_not_tell_their_key() -> None:
    for url in ("https://example.org", "http://localhost:1", "http://[::1]:1", "http://127.3.2.1"):
        assert KEY not in repr(Endpoint(url, key=KEY))
    assert Endpoint("http://example.org/v1").key is None  # without one, plain http is as good as any
    assert Endpoint("https://example.org/v1?key=abc").name == "https://example.org/v1/chat/completions"


Earshot = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Model) -> Earshot:
    """Run `earshot ask ARGUMENTS` where TWO are the passages."""
    found = [
        replace(p, recording=replace(p.recording, path=f"{tmp_path}/{n}.wav")) for n, p in zip("ab", TWO, strict=True)
    ]
    monkeypatch.setattr(Library, "ask", lambda *_, top, **__: (found * 50)[: max(2, top) if top > 5 else 2])

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.run(["ask", *arguments])
        out, err = capsys.readouterr()
        assert all(line.startswith("earshot: ") for line in err.splitlines()), err
        return (
            code,
            out,
            err.replace("earshot: no word of the question is found in these: they are alike in meaning at best\n", ""),
        )

    return run


def test_programs_get_passages_and_last_an_answer(run: Earshot, model: Model) -> None:
    model.replies = [says("Me ", "[2], [1] ", "and [7].")]
    code, out, err = run("who", "paid?", "--answer", "--endpoint", model.url, "--model", "llama")
    *passages, last = map(json.loads, out.splitlines())
    assert code == 0 and [row["recording"] for row in passages] == ["a.wav", "b.wav"]
    assert last == {
        "answer": "Me [2], [1] and [7].",
        "citations": [
            {"number": 2, "recording": "b.wav", "start": 61.25, "end": 70.0},
            {"number": 1, "recording": "a.wav", "start": 9.0, "end": 39.5},
        ],
    }
    assert err == "earshot: the answer cites [7], and there is no such passage: do not trust what stands before\n"
    assert model.body["model"] == "llama" and model.content.endswith("Question: who paid?")


def test_people_get_an_answer_and_where_it_is_said(run: Earshot, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARSHOT_ENDPOINT", model.url)
    monkeypatch.setenv("EARSHOT_MODEL", "llama")
    monkeypatch.setenv("EARSHOT_API_KEY", KEY)
    model.replies = [says("\n", "Me", " [2]."), says("They do not tell.")]
    code, out, err = run("who paid?", "--answer", "--table")
    assert (code, err) == (0, "") and out.startswith("0.50  a.wav@0:09.00-0:39.50")
    assert out.endswith("transcript: is said\n\nMe [2].\n\n[2] b.wav@1:01.25-1:10.00\n")
    assert model.sent[0][1]["Authorization"] == f"Bearer {KEY}" and model.body["model"] == "llama"
    code, out, err = run("who paid?", "--answer", "--table")
    assert out.endswith("\n\nThey do not tell.\n") and code == 0
    assert err == "earshot: the answer cites no passage: nothing tells where it is from\n"


def test_nothing_is_sent_unless_it_is_asked_for(run: Earshot, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = run("who paid?", "--endpoint", model.url)
    assert code == 0 and len(out.splitlines()) == 2 and err == "earshot: nothing is sent, as there is no --answer\n"
    monkeypatch.setenv("EARSHOT_ENDPOINT", model.url)
    code, out, err = run("who paid?")
    assert code == 0 and len(out.splitlines()) == 2 and err == "" and model.sent == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "EARSHOT_ENDPOINT=URL"),
        (("--endpoint", ""), "EARSHOT_ENDPOINT=URL"),
        (("--endpoint", "localhost:1"), "is no address"),
        (("--endpoint", "http://example.org"), "not sent unencrypted"),
        (("--endpoint", "https://example.org", "--send", "video"), "--send"),
        (("--endpoint", "https://example.org", "--timeout", "0"), "--timeout"),
        (("--endpoint", "https://example.org", "--timeout", "nan"), "--timeout"),
        (("--like", "a.wav"), "Type one QUESTION"),
    ],
)
def test_answers_that_cannot_be_asked_for_are_one_line_and_2(
    run: Earshot, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], told: str
) -> None:
    monkeypatch.setenv("EARSHOT_API_KEY", KEY)
    code, out, err = run("who paid?", "--answer", *arguments)
    assert (code, out) == (2, "") and told in err and err.count("\n") == 1 and KEY not in err


def test_a_spoken_question_to_a_model_that_reads_is_not_even_searched_for(run: Earshot, talk: Talk) -> None:
    like = ("--like", str(talk("q.wav")))
    code, out, err = run(*like, "--answer", "--endpoint", "http://localhost:1")
    assert (code, out) == (2, "") and "--send audio" in err and err.count("\n") == 1
    code, out, err = run(*like, *like)
    assert (code, out) == (2, "") and "Type one QUESTION" in err


def test_an_answer_that_fails_comes_after_the_passages(run: Earshot, model: Model) -> None:
    model.replies = [refuses(500), streams(event("The widow")), streams(event("The widow"))]
    code, out, err = run("who paid?", "--answer", "--endpoint", model.url)
    assert code == 1 and len(out.splitlines()) == 2 and "the server failed" in err and err.count("\n") == 1
    code, out, err = run("who paid?", "--answer", "--endpoint", model.url, "--table")
    assert code == 1 and out.endswith("\n\nThe widow\n") and "broke off" in err and err.count("\n") == 1
    code, out, err = run("who paid?", "--answer", "--endpoint", model.url)
    assert code == 1 and all(json.loads(line)["recording"] for line in out.splitlines()) and "broke off" in err


def test_passages_that_are_not_sent_are_told(run: Earshot, model: Model) -> None:
    model.replies = [says("Me [1].")]
    code, out, err = run("who paid?", "--answer", "--endpoint", model.url, "--top", "60")
    assert code == 0 and len(out.splitlines()) == 61
    assert err == "earshot: only the first 40 passages are sent as text\n"


def test_without_httpx_one_line_names_the_extra(run: Earshot, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    code, out, err = run("who paid?", "--answer", "--endpoint", model.url)
    assert code == 1 and len(out.splitlines()) == 2
    assert err == "earshot: answers need httpx: pip install '.[answer]'\n"


def test_a_sample_is_heard_by_a_model_and_its_answer_shown_as_it_comes(model: Model, tmp_path: Path) -> None:
    """All of it: a library of a sample, a question, the program in a process of its own, its output as it comes."""
    gate = threading.Event()
    model.replies = [streams(event("The widow "), gate, event("paid [1]."), DONE)]
    sample = SAMPLES / "council-meeting.mp3"
    with earshot.open(tmp_path / "library") as library:
        library.index(sample)
        (best,) = library.ask("who paid for the telescope?", top=1)
    command = [sys.executable, "-c", "from earshot.cli import main; main()", "ask", "who paid for the telescope?"]
    command += ["--top", "1", "--table", "--answer", "--endpoint", model.url, "--send", "audio", "-l", "library"]
    with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=-1, stderr=-1) as child:
        assert child.stdout is not None and child.stderr is not None
        out = b""
        while b"widow" not in out:
            piece = os.read(child.stdout.fileno(), 4096)
            assert piece, child.stderr.read()
            out += piece
        assert out.endswith(b"\n\nThe widow ") and not gate.is_set()
        gate.set()
        rest, err = child.communicate(timeout=60)
    assert child.returncode == 0 and err == b""
    said, _, source = rest.decode().partition("\n\n")
    assert said == "paid [1]." and source.startswith(f"[1] {sample}@0:")
    (heard,) = clips(model.content)
    wanted = earshot.audio.load(clip_of(best))
    assert 10 * SAMPLE_RATE < len(heard) == len(wanted) <= 30 * SAMPLE_RATE
    assert np.abs(heard / 32767 - wanted).max() < 1e-4


def test_clips_are_of_files_as_they_were_indexed(model: Model, talk: Talk) -> None:
    def gone(recording: Recording) -> str:
        raise GoneError(f"{recording.path}: has changed since it was indexed")

    model.replies = [says("Me [1].")] * 2
    path, moved = talk("a.wav", 2), talk("b.wav", 2, seed=1)
    passages, hears = [passage(path, 0.0, 2.0)], Endpoint(model.url, sends="audio")
    list(answer("who paid?", passages, hears, file_of=lambda _: str(moved)))
    (heard,) = clips(model.content)
    assert np.abs(heard / 32767 - earshot.audio.load(Clip(str(moved), 0.0, 2.0))).max() < 1e-4
    with pytest.raises(GoneError, match=r"a\.wav: has changed"):
        list(answer("who paid?", passages, hears, file_of=gone))
    list(answer("who paid?", passages, Endpoint(model.url), file_of=gone))  # no sound is sent
    assert len(model.sent) == 2
