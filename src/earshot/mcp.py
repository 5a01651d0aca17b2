"""A library as tools for assistants, by the Model Context Protocol: find, ask, clip, recordings.

In: a library, and the calls of a client. Out: structured results, and sound. Of files only those are read that the
library holds, as they were when they were indexed. Knows nothing of how they are searched.
"""

from __future__ import annotations

import base64
import os
from typing import Annotated, Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import AudioContent, CallToolResult, InputRequiredResult, TextContent, ToolAnnotations
from pydantic import BaseModel, Field, ValidationError

from earshot import audio, output
from earshot.api import Library
from earshot.rows import HitRow, PassageRow, RecordingRow, printed
from earshot.types import Clip, EarshotError, QueryError, Recording, Seconds

LONGEST: Seconds = 20.0
"""Of a clip: .9 MB of base64. A minute would be 2.6, which is much for one result."""

INSTRUCTIONS = """\
Earshot searches speech recordings by their sound. Use `find` for a word, name or short phrase, `ask` for a question,
`clip` to hear a place, `recordings` to see what there is. Times are seconds from the start of a recording. The text
that `ask` gives was guessed by a machine where `heard` is true: it has many errors, so do not quote it as what was
said; cite recording and time instead."""

Name = Annotated[
    str, Field(description="Path of a recording, as the tools give it; its end is enough where it is clear")
]
Start = Annotated[float, Field(ge=0, le=1e7, description="Seconds from the start of the recording")]
End = Annotated[float, Field(gt=0, le=1e7, description="Seconds from the start of the recording")]
Within = Annotated[
    str | None,
    Field(description="Only recordings whose path ends like this, or below a folder that does; * and ? stand for any"),
]


class Stretch(BaseModel):
    """A stretch of a recording in the library."""

    recording: Name
    start: Start
    end: End


class FoundHits(BaseModel):
    """Hits, best first."""

    hits: list[HitRow]
    note: str | None = None


class FoundPassages(BaseModel):
    """Passages, best first."""

    passages: list[PassageRow]
    note: str | None = None


class HeldRecordings(BaseModel):
    """Recordings by path; `total` and `seconds` are of all that match."""

    recordings: list[RecordingRow]
    total: int
    seconds: Seconds


class Tools:
    """The tools of a library. EarshotError where one cannot do what it is asked."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def find(
        self,
        query: Annotated[str | None, Field(description="A word, name or short phrase, as it is said")] = None,
        like: Annotated[Stretch | None, Field(description="A spoken example instead, 0.15 to 6 s long")] = None,
        top: Annotated[int, Field(ge=1, le=200, description="Hits at most")] = 20,
        threshold: Annotated[float, Field(ge=0, le=1, description="Only hits of this probability or more")] = 0.1,
        within: Within = None,
    ) -> FoundHits:
        """Find where a word or phrase is said, or what sounds like a stretch of a recording. It need not be in any
        dictionary. Give either `query` or `like`. For rare names try a threshold of 0.02."""
        if (query is None) == (like is None):
            raise QueryError("give either `query` or `like`")
        asked = query if like is None else self._clip(like.recording, like.start, like.end)
        assert asked is not None
        hits = self._library.find(asked, top=top, threshold=threshold, within=within)
        rows = zip(output.hit_rows(hits), hits, strict=True)
        found = [HitRow(**row | {"recording": _shown(hit.recording), "query": printed(hit.query)}) for row, hit in rows]
        nothing = f"no hit with a probability of {threshold:g} or more; a lower threshold may find some"
        return FoundHits(hits=found, note=None if found else self._why_nothing(within) or nothing)

    def ask(
        self,
        question: Annotated[str, Field(description="In the words that were probably used")],
        top: Annotated[int, Field(ge=1, le=50, description="Passages at most")] = 5,
        within: Within = None,
    ) -> FoundPassages:
        """Rank the passages of up to 40 s that may answer a question. With each come its words as a machine heard them,
        which are rough, and where words of the question are found in the sound, which is reliable where the probability
        is high. Passages always come, also where nothing answers."""
        passages = self._library.ask(question, top=top, within=within)
        found = [PassageRow(**output.passage_row(one) | {"recording": _shown(one.recording)}) for one in passages]
        nothing = "no words were heard"
        return FoundPassages(passages=found, note=None if found else self._why_nothing(within) or nothing)

    def clip(self, recording: Name, start: Start, end: End) -> Annotated[CallToolResult, Stretch]:
        """Cut a stretch of at most 20 s out of a recording, to listen to: wav, 16 kHz, mono."""
        clip = self._clip(recording, start, end)
        sound = base64.b64encode(audio.wav(audio.load(clip))).decode()
        cut = Stretch(recording=printed(clip.path), start=start, end=end)
        return CallToolResult(
            content=[
                AudioContent(type="audio", data=sound, mime_type="audio/wav"),
                TextContent(type="text", text=cut.model_dump_json()),
            ],
            structured_content=cut.model_dump(),
        )

    def recordings(
        self,
        within: Within = None,
        skip: Annotated[int, Field(ge=0, description="Leave out so many, to see the next ones")] = 0,
        top: Annotated[int, Field(ge=1, le=1000, description="Recordings at most")] = 100,
    ) -> HeldRecordings:
        """List the recordings in the library, by path, with their length and how much of it is speech, in seconds."""
        held = self._library.recordings(within)
        listed = [
            RecordingRow(
                recording=_shown(one), seconds=round(one.seconds, 3), speech_seconds=round(one.speech_seconds, 3)
            )
            for one in held[skip : skip + top]
        ]
        return HeldRecordings(recordings=listed, total=len(held), seconds=round(sum(one.seconds for one in held), 3))

    def _why_nothing(self, within: str | None) -> str | None:
        """What the library lacks where nothing was found."""
        if not self._library.recordings():
            return "the library is empty; recordings are put in with `earshot index PATH`"
        if within is not None and not self._library.recordings(within):
            raise QueryError(f"no recording has a path that matches {within!r}; `recordings` lists what there is")
        return None

    def _clip(self, name: str, start: Seconds, end: Seconds) -> Clip:
        """A stretch of the recording that `name` means. No file is looked at but one that the library holds."""
        if not start < end <= start + LONGEST:
            raise QueryError(f"a stretch must end after its start and be {LONGEST:g} s long at most")
        held = self._library.recordings()
        found = [one for one in held if _shown(one) == name]
        found = found or [one for one in held if name and _shown(one).endswith(os.sep + name)]
        if not found:
            raise QueryError(f"{name!r} is not in the library; `recordings` lists what is")
        if len(found) > 1:
            raise QueryError(f"{name!r} may be {_shown(found[0])} or {_shown(found[1])}; give the whole path")
        return Clip(self._library.file_of(found[0]), start, end)


class _Server(MCPServer[Any]):
    """Says whatever is wrong in one line."""

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        known = {tool.name: tool.input_schema["properties"] for tool in await self.list_tools()}
        if unknown := sorted(set(arguments) - set(known.get(name, arguments))):
            raise ToolError(f"`{name}` takes no {', '.join(unknown)}; it takes {', '.join(known[name])}")
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            if os.environ.get("EARSHOT_DEBUG"):
                raise
            raise ToolError(_line(error.__cause__ or error)) from None


def _line(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
    told = " ".join(str(error).split())
    return told if isinstance(error, EarshotError | ToolError) else f"unexpected {type(error).__name__}: {told}"


def _shown(recording: Recording) -> str:
    return printed(recording.path)


def create_server(library: Library) -> MCPServer[Any]:
    """A server of the official SDK whose tools search `library`, to run over whatever transport."""
    from importlib.metadata import version

    server = _Server("earshot", instructions=INSTRUCTIONS, version=version("earshot"), log_level="ERROR")
    tools = Tools(library)
    reading = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    for tool in (tools.find, tools.ask, tools.clip, tools.recordings):
        server.add_tool(tool, description=" ".join((tool.__doc__ or "").split()), annotations=reading)
    return server
