"""Pages of the documentation that come from the code: the start page, the catalog, the keys of a study file, the API.

A hook of mkdocs (mkdocs.yml), which adds them to the pages of this folder when the site is built.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import dirtune
from dirtune.cli.catalog import Entry, describe_entry, list_catalog
from dirtune.study.json_schema import make_json_schema

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = {
    "Start": ["index", "data", "running", "studies"],
    "Tutorials": [
        "tutorials",
        *(
            f"tutorials/{name}"
            for name in (
                "own_table",
                "own_images",
                "paper_table",
                "tune_confirm",
                "plugin",
                "cluster",
                "slurm",
                "notebook",
            )
        ),
    ],
    "Results": ["results", "statistics", "soundness", "serve", "trackers"],
    "Models": ["models", "losses"],
    "Methods": ["papers", "examples", "extending", "hooks"],
    "Reference": ["catalog", "study_file", "api", "measured"],
    "Operation": ["cluster", "security"],
}
"""Pages by section; a page that none of them names is in the last one."""
_KINDS = {
    "losses": "Regression losses",
    "terms": "Regularizers",
    "methods": "Methods by name",
    "recipes": "Recipes",
    "encoders": "Encoders",
    "augmentations": "Augmentations",
    "metrics": "Metrics",
    "diagnostics": "Diagnostics",
    "data": "Data sets",
    "studies": "Shipped studies",
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Set the navigation: every page once."""
    docs = ROOT / "docs"
    written = {str(path.relative_to(docs).with_suffix("")) for path in docs.rglob("*.md")}
    named = {name for names in SECTIONS.values() for name in names}
    others = sorted(written - named)
    config.nav = [{title: [f"{name}.md" for name in names]} for title, names in SECTIONS.items()]
    if others:
        config.nav.append({"More": [f"{name}.md" for name in others]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {
        "index": make_start_page(),
        "catalog": make_catalog(),
        "study_file": make_study_keys(),
        "api": make_api(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, f"{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links to the README lead to the start page, which is made of it."""
    return markdown.replace("](../README.md", "](index.md")


def make_start_page() -> str:
    """Return the README as a page of the site."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = text.replace("](docs/", "](").replace('src="docs/', 'src="')
    # Files of the repository that are no pages
    return re.sub(r"\[([^\]]+)\]\((LICENSE|CITATION\.cff|\w+\.md)\)", keep_page_links, text)


def keep_page_links(link: re.Match[str]) -> str:
    """Return a link to a page of this folder as it is, and of any other its text."""
    return link[0] if (ROOT / "docs" / link[2]).exists() else link[1]


def make_catalog() -> str:
    """Return every name that a study may use, with its settings."""
    lines = ["# Catalog", "", "What a study may name; on the command line `dirtune list KIND NAME`."]
    for kind, names in list_catalog().items():
        lines += ["", f"## {_KINDS.get(kind, kind)}"]
        for name in names:
            lines += ["", f"### `{name}`", "", *format_entry(describe_entry(kind, name))]
    return "\n".join(lines) + "\n"


def format_entry(entry: Entry) -> Iterator[str]:
    """Yield the lines of one name: what it is, and its settings as a table."""
    yield escape(entry.about)
    if entry.rows:
        yield ""
        yield f"| {' | '.join(entry.columns)} |"
        yield f"|{'---|' * len(entry.columns)}"
        for row in entry.rows:
            yield f"| {' | '.join(escape(cell).replace(chr(10), '<br>') for cell in row)} |"


def make_study_keys() -> str:
    """Return the keys of a study file with their types, defaults and documentation."""
    schema = make_json_schema()
    lines = [
        "# The study file, key by key",
        "",
        "Generated from the classes that read it; `dirtune schema` prints them.",
    ]
    for key, about in schema["properties"].items():
        lines += ["", f"## `{key}`", "", *describe_property(about)]
        for target in find_references(about):
            lines += format_class(schema["$defs"][target])
    lines += ["", "## Settings of an arm", "", "Below `base`, `arms.NAME` and `parts.NAME`."]
    lines += format_class(schema["$defs"]["Overlay"])
    for name, section in schema["$defs"].items():
        if name not in {"Overlay", "Variant"} and section.get("properties"):
            lines += ["", f"### {name}", "", escape(section.get("description", "")), *format_class(section)]
    return "\n".join(lines) + "\n"


def format_class(section: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table of the fields of a class."""
    fields = section.get("properties", {})
    if fields:
        yield ""
        yield "| key | type | default | meaning |"
        yield "|---|---|---|---|"
        for name, about in fields.items():
            default = "" if "default" not in about else f"`{escape(str(about['default']))}`"
            yield f"| `{name}` | {format_type(about)} | {default} | {escape(about.get('description', ''))} |"


def describe_property(about: Mapping[str, Any]) -> Iterator[str]:
    """Yield the documentation of a key, and its type."""
    if about.get("description"):
        yield escape(about["description"])
        yield ""
    yield f"Type: {format_type(about)}." + (f" Default: `{about['default']}`." if "default" in about else "")


def format_type(about: Mapping[str, Any]) -> str:
    """Return the type of a JSON Schema in words."""
    if "$ref" in about:
        return about["$ref"].rsplit("/", 1)[-1]
    if "enum" in about or "const" in about:
        return " or ".join(f"`{value}`" for value in about.get("enum", [about.get("const")]))
    for several in ("anyOf", "oneOf"):
        if several in about:
            return " or ".join(dict.fromkeys(format_type(each) for each in about[several]))
    if about.get("type") == "array":
        return f"list of {format_type(about.get('items', {}))}"
    if about.get("type") == "object" and isinstance(about.get("additionalProperties"), Mapping):
        return f"mapping of {format_type(about['additionalProperties'])}"
    return str(about.get("type", "any"))


def find_references(about: Any) -> Iterator[str]:
    """Yield the names of the classes that a part of the schema refers to, apart from settings of arms."""
    if isinstance(about, Mapping):
        if "$ref" in about and (name := about["$ref"].rsplit("/", 1)[-1]) not in {"Overlay", "Variant"}:
            yield name
        for each in about.values():
            yield from find_references(each)
    elif isinstance(about, list):
        for each in about:
            yield from find_references(each)


def make_api() -> str:
    """Return the reference of the public names."""
    lines = ["# Python", "", "Names of `dirtune`, imported when first used.", ""]
    for name in dirtune.__all__:
        value = getattr(dirtune, name)
        lines += [f"::: {value.__module__}.{value.__qualname__}", ""]
    return "\n".join(lines)


def escape(text: str) -> str:
    """Return a text that Markdown shows as it is, in one cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n\n", "<br>")
