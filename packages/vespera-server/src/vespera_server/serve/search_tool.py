"""Responsible for the tool that finds lines in files beneath the roots."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server.mcpserver import Context
from pydantic import BaseModel, Field

import vespera_file_ops
from vespera_file_ops import Found, Match, PatternError
from vespera_server.problems import Refused
from vespera_server.serve.answers import Answer
from vespera_server.serve.file_work import FilePath, WorkOf
from vespera_server.serve.policy import Policy
from vespera_server.serve.tool import StructuredServer, add_tool

__all__ = ["add_search_tool"]

_LONGEST_LINE = 2000


class MatchRow(BaseModel):
    path: str = Field(description="Relative to the searched root.")
    line: int = Field(description="Number of the line, from 1.")
    text: str = Field(description="The line, at most 2,000 characters of it.")
    before: list[str] | None = None
    after: list[str] | None = None


class SearchAnswer(Answer):
    directory: str | None = None
    matches: list[MatchRow] = Field(default_factory=list)
    more: bool | None = Field(default=None, description="Whether there may be more than these.")
    unread: int | None = Field(default=None, description="How many files could not be read.")


def add_search_tool(server: StructuredServer, policy: Policy, work_of: WorkOf) -> None:
    """Register it."""
    options, places = policy.options, policy.places

    async def search_files(
        ctx: Context[Any, Any],
        pattern: Annotated[
            str,
            Field(
                description="A regular expression, matched against each line; or the text itself.",
                min_length=1,
                max_length=4096,
                examples=[r"def \w+_test\(", "TODO"],
            ),
        ],
        directory: FilePath = ".",
        literal: Annotated[
            bool, Field(description="Whether `pattern` is the text itself.")
        ] = False,
        ignore_case: Annotated[bool, Field(description="Whether 'a' finds 'A'.")] = False,
        include: Annotated[
            list[str] | None,
            Field(
                description="Globs of files to search.", max_length=50, examples=[["*.py", "*.rs"]]
            ),
        ] = None,
        around: Annotated[int, Field(description="Lines before and after.", ge=0, le=20)] = 0,
        hidden: Annotated[
            bool, Field(description="Whether hidden and git-ignored files are searched too.")
        ] = False,
        limit: Annotated[int, Field(description="At most so many lines.", ge=1, le=10_000)] = 200,
    ) -> SearchAnswer:
        """Find lines in the text files beneath a directory."""
        place = places.find(directory)
        answer = SearchAnswer(
            success=True, backend=vespera_file_ops.backend(), directory=place.shown
        )
        searches: list[Found[Match]] = []

        def search() -> None:
            found = place.workspace.search_files(
                place.path,
                pattern,
                literal=literal,
                case="ignore" if ignore_case else "sensitive",
                include=tuple(include or ()),
                before=around,
                after=around,
                gitignore=not hidden,
                hidden=hidden,
                max_file_size=options.largest_file,
                limit=limit,
                sort=True,
            )
            searches.append(found)
            with found:
                answer.more = _collect(found, answer.matches, options.largest_answer)
                answer.more = answer.more or found.limited
                answer.unread = found.error_count

        try:
            await work_of(ctx).do(search)
        except PatternError as error:
            if error.context.get("pattern") != pattern:
                raise  # a glob of `include`
            remedy = "correct the regular expression, or set literal to search for the text itself"
            raise Refused("pattern", str(error), remedy) from error
        finally:
            # However this call ends: what nobody waits for is not searched for.
            for found in searches:
                found.close()
        return answer

    add_tool(
        server, search_files, SearchAnswer, policy.redactor, title="Search in files", read_only=True
    )


def _collect(found: Found[Match], into: list[MatchRow], largest: int) -> bool:
    """Take matches until there is no more room; whether some were left."""
    for match in found:
        row = MatchRow(
            path=str(match.path).removeprefix("./"),
            line=match.line,
            text=match.text[:_LONGEST_LINE],
            before=[line[:_LONGEST_LINE] for line in match.before] or None,
            after=[line[:_LONGEST_LINE] for line in match.after] or None,
        )
        largest -= _size(row)
        if largest < 0:
            return True
        into.append(row)
    return False


def _size(row: MatchRow) -> int:
    # Bytes that are not UTF-8 are escaped in a way that JSON cannot spell.
    return len(str(row.model_dump()).encode("utf-8", "surrogatepass"))
