"""Read a Dockerfile as a builder does, and say what is wrong with it: no builder is needed.

``python hack/lint_dockerfile.py`` checks the one of this tree. Known are comments, continued lines,
heredocs, instructions in any case, stages by name and number, and the forms of COPY, USER and
ENTRYPOINT. Whether a base image exists, and what is in it, only a registry can tell.
"""

import argparse
import fnmatch
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]

_BUILDING = {"ADD", "ARG", "COPY", "ENV", "FROM", "ONBUILD", "RUN", "SHELL", "USER", "WORKDIR"}
_RUNNING = {"CMD", "ENTRYPOINT", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL", "VOLUME"}
_KNOWN = frozenset(_BUILDING | _RUNNING | {"LABEL"})
_PINNED = re.compile(
    r"[^\s:@]+(:\d+/[^\s:@]+)?(:[\w.-]*\d+\.\d+\.\d+[\w.-]*|@sha256:[0-9a-f]{64})+"
)
_SECRET = re.compile(
    r"(?i)(^|_)(password|passwd|secret|token|api_?key|private_?key|credentials?)(_|$)"
)
_SECRET_FILE = re.compile(
    r"(?i)(^|/)(\.env|\.netrc|\.git-credentials|id_[a-z0-9]+|.*\.(pem|key|p12))$"
)
_HEREDOC = re.compile(r"<<-?\s*[\"']?(\w+)[\"']?")
_FLAG = re.compile(r"--([\w-]+)=(\S+)\s+")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_USER = re.compile(r"[1-9]\d*(:\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One instruction.

    Attributes:
        line: Where it begins, from 1.
        stage: Number of the FROM that it follows, from 1; 0 before the first.
        word: ``COPY``, in capitals.
        flags: ``--from=build`` as name and value.
        text: All else, continued lines joined.
    """

    line: int
    stage: int
    word: str
    flags: dict[str, str]
    text: str

    @property
    def words(self) -> list[str]:
        """Its arguments; those of the JSON form, where it has that."""
        return self.exec_form or self.text.split()

    @property
    def exec_form(self) -> list[str] | None:
        """The strings of the JSON form; None for the shell's."""
        try:
            found = json.loads(self.text)
        except ValueError:
            return None
        is_strings = isinstance(found, list) and all(isinstance(word, str) for word in found)
        return found if is_strings else None


def parse(text: str) -> list[Instruction]:
    """Every instruction, in its order."""
    found: list[Instruction] = []
    lines = list(enumerate(text.splitlines(), start=1))
    stage = 0
    while lines:
        number, line = lines.pop(0)
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        while line.rstrip().endswith("\\") and lines:
            following = lines.pop(0)[1]
            if not following.lstrip().startswith("#"):  # comments in between belong to nobody
                line = f"{line.rstrip()[:-1]}{following}"
        for end in _HEREDOC.findall(line):
            while lines and lines.pop(0)[1].strip() != end:
                pass
        word, _, rest = line.strip().partition(" ")
        flags: dict[str, str] = {}
        rest = rest.strip()
        while match := _FLAG.match(rest):
            flags[match[1]] = match[2]
            rest = rest[match.end() :]
        stage += word.upper() == "FROM"
        found.append(
            Instruction(line=number, stage=stage, word=word.upper(), flags=flags, text=rest)
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A FROM: its image, with build arguments filled in, and its name."""

    number: int
    image: str
    name: str


def stages(instructions: Sequence[Instruction]) -> list[Stage]:
    """Every stage, in its order."""
    defaults = dict(
        i.text.partition("=")[::2] for i in instructions if i.word == "ARG" and i.stage == 0
    )
    found = []
    for each in (i for i in instructions if i.word == "FROM"):
        image, *rest = each.text.split() or [""]
        name = rest[1].lower() if len(rest) == 2 and rest[0].upper() == "AS" else ""
        found.append(Stage(number=each.stage, image=_filled(image, defaults), name=name))
    return found


def _filled(text: str, values: dict[str, str]) -> str:
    return _VARIABLE.sub(lambda match: values.get(match[1] or match[2], ""), text)


def problems(text: str, context: Path) -> list[str]:
    """One line for each problem; empty when all is well.

    Args:
        text: The Dockerfile.
        context: Directory that is sent to the builder, with its ``.dockerignore``.
    """
    instructions = parse(text)
    known = stages(instructions)
    if not known:
        return ["there is no FROM"]
    found = [
        *_misplaced(instructions),
        *_bases(known),
        *_copies(instructions, known, context),
        *_secrets(instructions),
        *_last_stage(instructions, known[-1].number),
    ]
    return list(dict.fromkeys(found))


def _misplaced(instructions: Sequence[Instruction]) -> Iterator[str]:
    for each in instructions:
        if each.word not in _KNOWN:
            yield f"line {each.line}: {each.word} is no instruction"
        elif each.stage == 0 and each.word != "ARG":
            yield f"line {each.line}: {each.word} comes before FROM"
        if each.word == "ADD":
            yield f"line {each.line}: ADD unpacks and downloads: COPY does what it says"


def _bases(known: Sequence[Stage]) -> Iterator[str]:
    for stage in known:
        before = {other.name for other in known[: stage.number - 1]} - {""}
        if stage.image.lower() not in before | {"scratch"} and not _PINNED.fullmatch(stage.image):
            yield f"stage {stage.number}: base {stage.image!r} is not pinned to a version"


def _copies(
    instructions: Sequence[Instruction], known: Sequence[Stage], context: Path
) -> Iterator[str]:
    for each in (i for i in instructions if i.word in {"COPY", "ADD"}):
        if "from" in each.flags:
            origin = each.flags["from"].lower()
            before = known[: each.stage - 1]
            names = {stage.name for stage in before} | {str(n) for n in range(len(before))}
            if origin not in names - {""} and not _PINNED.fullmatch(origin):
                yield f"line {each.line}: there is no stage {origin} before"
            continue
        for source in (word for word in each.words[:-1] if not word.startswith("<<")):
            path = PurePosixPath(source.lstrip("/"))
            if not path.parts:  # the whole context
                continue
            if ".." in path.parts or not list(context.glob(str(path))):
                yield f"line {each.line}: there is no {source} to copy"
            elif is_ignored(path, ignore_rules(context)):
                yield f"line {each.line}: .dockerignore leaves out {source}"


def ignore_rules(context: Path) -> list[str]:
    """Patterns of ``.dockerignore``, in their order."""
    file = context / ".dockerignore"
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def is_ignored(path: PurePosixPath, rules: Sequence[str]) -> bool:
    """The last rule that is about a path, or about a directory it is in, decides."""
    ignored = False
    for rule in rules:
        pattern = rule.removeprefix("!").strip("/")
        if any(fnmatch.fnmatchcase(str(part), pattern) for part in (path, *path.parents[:-1])):
            ignored = not rule.startswith("!")
    return ignored


def _secrets(instructions: Sequence[Instruction]) -> Iterator[str]:
    """Values stay in the image's history for everyone to read, removed later or not."""
    for each in instructions:
        if each.word in {"ARG", "ENV"} and each.text:
            words = each.text.split()
            given = words if each.word == "ARG" or "=" in words[0] else words[:1]
            names = [word.partition("=")[0] for word in given]
            for name in (name for name in names if _SECRET.search(name)):
                yield f"line {each.line}: {each.word} {name} would keep a secret in the image"
        if each.word in {"COPY", "ADD"} and "from" not in each.flags:
            for source in (word for word in each.words[:-1] if _SECRET_FILE.search(word)):
                yield f"line {each.line}: {source} looks like a secret"


def _last_stage(instructions: Sequence[Instruction], number: int) -> Iterator[str]:
    """What runs is not root, and gets the signals of Kubernetes."""
    last = [i for i in instructions if i.stage == number]
    users = [i for i in last if i.word == "USER"]
    if not users:
        yield "the last stage has no USER: it runs as root"
    elif not _USER.fullmatch(users[-1].text):
        yield (
            f"line {users[-1].line}: USER {users[-1].text} is not a number above 0, "
            "which runAsNonRoot needs"
        )
    entry_points = [i for i in last if i.word == "ENTRYPOINT"]
    if not entry_points:
        yield "the last stage has no ENTRYPOINT"
    for each in (i for i in last if i.word in {"ENTRYPOINT", "CMD"}):
        if not each.exec_form:
            yield f"line {each.line}: {each.word} needs the JSON form, or a shell takes the signals"


def main(argv: Sequence[str] | None = None) -> int:
    """Check a Dockerfile; 1 when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("context", nargs="?", type=Path, default=ROOT, help="directory with it")
    context: Path = parser.parse_args(argv).context
    found = problems((context / "Dockerfile").read_text("utf-8"), context)
    for problem in found:
        print(f"Dockerfile: {problem}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
