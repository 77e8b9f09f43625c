"""What the documentation names is there, and what it shows is run."""

import ast
import codeop
import configparser
import itertools
import re
import runpy
from pathlib import Path

import pytest

import hskv
from hskv import exceptions

from ..pages import DOCS, ROOT, Block, blocks, pages

TESTS = ROOT / "tests"
PROMISES = (DOCS / "promises.md").read_text()
BLOCKS = [block for page in pages() for block in blocks(page)]
RUN = {"python", "pycon", "sh", "sql", "ini"}


def names_in(file: Path) -> set[str]:
    """The names of its tests, and of classes of tests."""
    return {
        node.name
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }


def test_every_test_that_a_promise_names_is_there() -> None:
    named = re.findall(r"`([a-z/]+/test_\w+\.py)::(\w+)`", PROMISES)
    assert len(named) > 20
    missing = [(file, name) for file, name in named if name not in names_in(TESTS / file)]
    assert missing == []


def test_every_promise_names_a_test() -> None:
    table = PROMISES.partition("| operation |")[2].partition("\n\n")[0]
    lines = table.splitlines()[2:]
    assert len(lines) > 20
    assert [line for line in lines if not re.search(r"`[a-z/]+/test_\w+\.py::\w+` \|$", line)] == []


def test_every_file_that_a_page_names_is_there() -> None:
    for page in pages():
        for name in re.findall(r"`((?:tests|tools|examples)/[\w./]+)`", page.read_text()):
            assert (ROOT / name).exists(), f"{page.name}: {name}"


def test_every_exception_is_explained() -> None:
    page = (DOCS / "errors.md").read_text()
    names = {
        name for name, one in vars(exceptions).items() if isinstance(one, type) and name[0] != "_"
    }
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []


def test_every_public_name_is_in_the_reference() -> None:
    reference = "".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    documented = set(re.findall(r"auto\w+:: hskv\.(?:store\.serializers\.)?(\w+)", reference))
    assert {"exceptions", "manager", "sockets", "mariadb", "integrations"} <= documented
    errors = set(vars(exceptions))
    assert set(hskv.__all__) - errors - documented - {"Manager", "__version__"} == set()


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]:
        for target, anchor in re.findall(r"\]\(([^)#:]+)(?:#([^)]*))?\)", page.read_text()):
            file = page.parent / target
            assert file.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(file), f"{page.name}: {target}#{anchor}"


def test_every_picture_says_what_it_shows() -> None:
    for page in pages():
        for words in re.findall(r"!\[([^\]]*)\]", page.read_text()):
            assert len(words) > 10, f"{page.name}: {words!r}"


def test_the_diagrams_are_what_their_source_draws() -> None:
    source = runpy.run_path(str(ROOT / "tools" / "pictures.py"))
    for name in ("request", "batching", "expiry", "replicated"):
        kept = (DOCS / "images" / f"{name}.svg").read_text()
        assert source[name]() == kept, "run `make pictures`"


@pytest.mark.parametrize("block", BLOCKS, ids=[block.place for block in BLOCKS])
def test_a_block_is_run_or_says_why_not(block: Block) -> None:
    if block.elsewhere:
        runner = ROOT / block.elsewhere
        assert runner.exists()
        assert runner.suffix != ".py" or block.page.stem in runner.read_text()
    elif not block.reason:
        assert block.language in RUN | {"text"}, "the tests run no blocks of this language"


def test_blocks_that_nothing_can_run_are_few() -> None:
    unrun = [block for block in BLOCKS if block.reason]
    assert len(unrun) < len(BLOCKS) / 10
    assert all(len(str(block.reason)) > 8 for block in unrun)


def test_what_is_printed_stands_below_what_prints_it() -> None:
    for above, below in itertools.pairwise(BLOCKS):
        if below.language == "text" and not below.reason:
            assert above.page == below.page
            assert above.language in {"sh", "sql", "python"}


def test_the_server_of_the_documentation_is_the_one_of_the_page() -> None:
    page = DOCS / "server.md"
    (written,) = (block for block in BLOCKS if block.page == page and block.language == "ini")
    parser = configparser.ConfigParser(inline_comment_prefixes=("#",))
    parser.read_string(written.text)
    for secret in ("handlersocket_plain_secret", "handlersocket_plain_secret_wr"):
        assert parser["mariadb"][secret] in page.read_text().partition("## Connect")[2]


def typed(block: Block) -> list[str]:
    """What is typed at each prompt, up to the next."""
    lines = [line for line in block.text.splitlines() if line[:3] in (">>>", "...")]
    found: list[str] = []
    for line in lines:
        if line.startswith(">>>"):
            found.append(line[4:])
        else:
            found[-1] += "\n" + line[4:]
    return found


@pytest.mark.parametrize(
    "block",
    [block for block in BLOCKS if block.language == "pycon"],
    ids=lambda block: block.place,
)
def test_what_is_typed_is_complete_where_it_is_answered(block: Block) -> None:
    # Else who pastes it into an interpreter gets a SyntaxError.
    for source in typed(block):
        assert codeop.compile_command(source) is not None, f"end it with '...': {source}"
