"""The tools for assistants, as a client of the official SDK sees them over the standard streams of a real process."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import earshot
from earshot import cli

pytest.importorskip("mcp.server.mcpserver", reason="the extra `mcp` is not installed")

import mcp
from anyio.from_thread import start_blocking_portal
from mcp_types import AudioContent, CallToolResult, TextContent

SAMPLES = Path(__file__).parents[1] / "samples"
PROGRAM = [sys.executable, "-c", "from earshot.cli import main; main()"]
Call = Callable[..., CallToolResult]


def environment(**more: str) -> dict[str, str]:
    return {"PYTHONPATH": str(Path(earshot.__file__).parents[1]), "OMP_NUM_THREADS": "1", **more}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings in `talks`, one of them twice, and their library; beside them what is not in it."""
    folder = tmp_path_factory.mktemp("mcp")
    for name in ("talks/podcast.m4a", "talks/2024/meeting.mp3", "talks/2025/meeting.mp3", "talks/changed.opus"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        sample = {"meeting": "council-meeting.mp3", "podcast": "podcast.m4a", "changed": "lecture.opus"}
        shutil.copy(SAMPLES / sample[Path(name).stem], folder / name)
    shutil.copy(SAMPLES / "lecture.opus", folder / "talks" / os.fsdecode(b"caf\xe9.opus"))
    with earshot.open(folder / "library") as library:
        assert not library.index(folder / "talks").failures
    shutil.copy(SAMPLES / "radio-news.opus", folder / "secret.opus")
    (folder / "talks" / "changed.opus").unlink()
    (folder / "talks" / "changed.opus").symlink_to(folder / "secret.opus")
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Callable[..., Any]]:
    """Call a method of a client that is connected to `earshot mcp`."""
    server = mcp.StdioServerParameters(
        command=PROGRAM[0], args=[*PROGRAM[1:], "mcp", "--library", "library"], env=environment(), cwd=folder
    )
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(mcp.Client(mcp.stdio_client(server))) as client,
    ):

        def call(name: str, *arguments: Any) -> Any:
            return portal.call(getattr(client, name), *arguments)

        yield call


@pytest.fixture
def call(client: Callable[..., Any]) -> Call:
    def call(tool: str, **arguments: Any) -> CallToolResult:
        result = client("call_tool", tool, arguments)
        assert isinstance(result, CallToolResult)
        return result

    return call


def got(result: CallToolResult) -> dict[str, Any]:
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


def wrong(result: CallToolResult) -> str:
    """What a tool says that could not do what it was asked: one line."""
    assert result.is_error
    (content,) = result.content
    assert isinstance(content, TextContent) and "\n" not in content.text and content.text
    return content.text


def test_the_tools_and_their_schemas_are_documented(client: Callable[..., Any]) -> None:
    tools = {tool.name: tool for tool in client("list_tools").tools}
    assert list(tools) == ["find", "ask", "clip", "recordings"]
    for tool in tools.values():
        assert (
            tool.description
            and "  " not in tool.description
            and tool.annotations.read_only_hint
            and tool.output_schema["type"] == "object"
        )
        for name, schema in tool.input_schema["properties"].items():
            assert "description" in schema or "$ref" in str(schema), (tool.name, name)
    assert tools["clip"].input_schema["required"] == ["recording", "start", "end"]
    hit = tools["find"].output_schema["$defs"]["HitRow"]["properties"]
    assert {"recording", "start", "end", "probability"} <= set(hit)


def test_find_a_word_and_what_sounds_like_it(call: Call, folder: Path) -> None:
    hits = got(call("find", query="gradient", within="podcast.m4a"))["hits"]
    assert hits and hits[0]["recording"] == str(folder / "talks" / "podcast.m4a") and hits[0]["query"] == "gradient"
    assert [hit["probability"] for hit in hits] == sorted((hit["probability"] for hit in hits), reverse=True)
    assert any(abs(hit["start"] - 27.61) < 0.2 and hit["probability"] > 0.5 for hit in hits)
    like = {"recording": "podcast.m4a", "start": 27.61, "end": 28.11}
    best = got(call("find", like=like, top=1))["hits"]
    assert len(best) == 1 and best[0]["probability"] > 0.5
    assert got(call("find", like=json.dumps(like), top=1))["hits"] == best  # as some assistants write it


def test_nothing_found_says_what_to_do(call: Call, folder: Path) -> None:
    found = got(call("find", query="xylophone", threshold=1))
    assert found["hits"] == [] and "lower threshold" in found["note"]
    assert "matches 'gone'" in wrong(call("find", query="gradient", within="gone"))
    assert "matches 'gone'" in wrong(call("ask", question="who paid for the telescope?", within="gone"))


def test_ask_ranks_passages(call: Call, folder: Path) -> None:
    passages = got(call("ask", question="who paid for the telescope?", top=2))["passages"]
    assert {Path(passage["recording"]).name for passage in passages} == {"meeting.mp3"}
    assert passages[0]["start"] <= passages[0]["best"]["start"] < passages[0]["best"]["end"] <= passages[0]["end"]
    assert passages[0]["heard"] is True and passages[0]["best"]["text"] in passages[0]["text"]
    assert "telescope" in {word["word"] for word in passages[0]["words"]}


@pytest.mark.parametrize("name", ["podcast.m4a", "talks/podcast.m4a", "whole"])
def test_clip_is_the_sound(call: Call, folder: Path, name: str) -> None:
    path = str(folder / "talks" / "podcast.m4a")
    result = call("clip", recording=path if name == "whole" else name, start=27.5, end=28.5)
    assert got(result) == {"recording": path, "start": 27.5, "end": 28.5}
    sound, text = result.content
    assert isinstance(sound, AudioContent) and sound.mime_type == "audio/wav"
    assert isinstance(text, TextContent) and json.loads(text.text) == got(result)
    with wave.open(io.BytesIO(base64.b64decode(sound.data))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (16_000, 1, 16_000)
        cut = file.readframes(16_000)
    wav = folder / "cut.wav"
    assert cli.run(["clip", f"{path}@27.5-28.5", str(wav)]) == 0
    with wave.open(str(wav)) as file:
        assert file.readframes(16_000) == cut


def test_recordings_are_listed_by_path(call: Call, folder: Path) -> None:
    held = got(call("recordings"))
    names = [os.path.relpath(one["recording"], folder / "talks") for one in held["recordings"]]
    assert names == ["2024/meeting.mp3", "2025/meeting.mp3", r"caf\udce9.opus", "changed.opus", "podcast.m4a"]
    assert held["total"] == 5 and held["seconds"] == pytest.approx(sum(one["seconds"] for one in held["recordings"]))
    part = got(call("recordings", within="meeting.mp3", skip=1, top=1))
    assert part["total"] == 2 and part["recordings"] == held["recordings"][1:2]
    assert got(call("recordings", within="gone")) == {"recordings": [], "total": 0, "seconds": 0}


def test_a_name_of_any_bytes_is_one_that_can_be_asked_for(call: Call, folder: Path) -> None:
    (held,) = got(call("recordings", within="caf*"))["recordings"]
    like = {"recording": held["recording"], "start": 6.65, "end": 7.29}
    (hit,) = got(call("find", like=like, within="caf*", top=1))["hits"]
    assert hit["recording"] == held["recording"] and not call("clip", **like).is_error


def test_only_recordings_of_the_library_can_be_read(call: Call, folder: Path) -> None:
    (folder / "talks" / "link.m4a").symlink_to(folder / "secret.opus")
    outside = [
        str(folder / "secret.opus"),
        "secret.opus",
        "../secret.opus",
        "talks/../secret.opus",
        str(folder / "talks" / ".." / "secret.opus"),
        str(folder / "talks" / "link.m4a"),
        "/etc/passwd",
        "file:///etc/passwd",
        str(folder / "talks"),
        "talks",
        "*",
        "",
    ]
    for name in outside:
        for result in (
            call("clip", recording=name, start=0, end=1),
            call("find", like={"recording": name, "start": 0, "end": 1}),
        ):
            assert wrong(result) == f"{name!r} is not in the library; `recordings` lists what is"
    (folder / "talks" / "link.m4a").unlink()


def test_a_recording_whose_file_is_another_by_now_is_refused(call: Call, folder: Path) -> None:
    """Its times would be wrong, and what lies there may not be meant for anybody."""
    told = wrong(call("clip", recording="changed.opus", start=0, end=1))
    assert told.endswith("changed.opus: has changed since it was indexed; run `earshot index` again")
    assert got(call("find", query="gradient", within="changed.opus"))["hits"]


@pytest.mark.parametrize(
    ("tool", "arguments", "told"),
    [
        ("find", {}, "give either `query` or `like`"),
        ("find", {"query": "x", "like": {"recording": "podcast.m4a", "start": 1, "end": 2}}, "give either"),
        ("find", {"query": ""}, "the query is empty"),
        ("find", {"query": "你好"}, "你好"),
        ("find", {"query": "gradient", "top": 0}, "top: Input should be greater than or equal to 1"),
        ("find", {"query": "gradient", "threshold": 2}, "threshold: "),
        ("find", {"query": 3}, "query: "),
        ("find", {"query": "gradient", "threshhold": 0.1}, "`find` takes no threshhold; it takes query, like, "),
        ("find", {"like": "podcast.m4a@1-2"}, "like: "),
        ("find", {"like": {"recording": "podcast.m4a", "start": 1, "end": 1.01}}, "0.15 s"),
        ("find", {"like": {"recording": "podcast.m4a", "start": 1, "end": 15}}, "6 s"),
        ("ask", {}, "question: "),
        ("ask", {"question": " "}, "the question is empty"),
        ("ask", {"question": "who " * 500}, "words"),
        ("clip", {"recording": "podcast.m4a", "start": 0}, "end: "),
        ("clip", {"recording": "podcast.m4a", "start": -1, "end": 1}, "start: "),
        ("clip", {"recording": "podcast.m4a", "start": 2, "end": 1}, "end after its start"),
        ("clip", {"recording": "podcast.m4a", "start": 0, "end": 20.5}, "20 s long at most"),
        ("clip", {"recording": "podcast.m4a", "start": 0, "end": 1e308}, "end: "),
        ("clip", {"recording": "podcast.m4a", "start": 100, "end": 101}, "the recording is only 41.86 s long"),
        ("clip", {"recording": "meeting.mp3", "start": 0, "end": 1}, "give the whole path"),
        ("recordings", {"top": 10_000}, "top: "),
        ("delete", {}, "Unknown tool: delete"),
    ],
)
def test_bad_input_is_one_line(call: Call, tool: str, arguments: dict[str, Any], told: str) -> None:
    assert told in wrong(call(tool, **arguments))


def started(program: list[str], folder: Path, library: str) -> subprocess.Popen[str]:
    command = [*program, "mcp", "--library", library]
    return subprocess.Popen(
        command, cwd=folder, env=os.environ | environment(), stdin=-1, stdout=-1, stderr=-1, text=True, process_group=0
    )


HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


def request(number: int, method: str, **params: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


def test_nothing_but_the_protocol_is_on_standard_output(folder: Path, tmp_path: Path) -> None:
    """Also where there is no library, which is told by the tools, for it may be made later."""
    lines = [request(1, "initialize", **HELLO), '{"jsonrpc": "2.0", "method": "notifications/initialized"}']
    for number, tool in enumerate(("find", "recordings", "clip"), 2):
        arguments = {"find": {"query": "x"}, "clip": {"recording": "a", "start": 0, "end": 1}}.get(tool, {})
        lines.append(request(number, "tools/call", name=tool, arguments=arguments))
    with started(PROGRAM, tmp_path, "none") as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write("".join(f"{line}\n" for line in ["this is no JSON", *lines]))
        child.stdin.flush()
        replies: dict[int | None, Any] = {}
        while not {1, 2, 3, 4} <= set(replies):
            reply = json.loads(child.stdout.readline())
            replies[reply.get("id")] = reply
        rest, _ = child.communicate(timeout=60)
    assert child.returncode == 0 and rest == "" and replies[1]["result"]["serverInfo"]["name"] == "earshot"
    assert "find" in replies[1]["result"]["instructions"]
    for number in (2, 3, 4):
        told = replies[number]["result"]
        assert told["isError"] and told["content"][0]["text"].startswith(f"no library at {tmp_path / 'none'}: make one")
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_stops_it(folder: Path) -> None:
    with started(PROGRAM, folder, "library") as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(request(1, "initialize", **HELLO) + "\n")
        child.stdin.flush()
        assert json.loads(child.stdout.readline())["id"] == 1
        child.send_signal(signal.SIGINT)
        child.wait(timeout=60)
        assert child.returncode == 130 and child.stderr is not None
        assert child.stderr.read() == "earshot: stopped\n"


def test_without_the_extra_it_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "earshot.mcp", raising=False)
    monkeypatch.setitem(sys.modules, "mcp.server", None)
    assert cli.run(["mcp", "--library", str(folder / "library")]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "pip install '.[mcp]'" in err
