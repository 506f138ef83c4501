"""``reg2rg list [kind]``: components, region sets and packaged configs; components are read from the source text."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from reg2rg.cli.main import Invocation
from reg2rg.config.overlay import packaged_configs, packaged_folder
from reg2rg.config.sources import components
from reg2rg.core.errors import ConfigError
from reg2rg.core.regions import Region, load_region_set, packaged_region_sets
from reg2rg.core.registry import did_you_mean

CONFIGS = "config"
REGION_SETS = "region_set"


def run(invocation: Invocation) -> int:
    """Run ``reg2rg list``; see `reg2rg.cli.main`."""
    parser = argparse.ArgumentParser(
        prog="reg2rg list", description="Components and their arguments, region sets, packaged configs."
    )
    found = components()
    kinds = sorted({component.kind for component in found})
    known = [*kinds, REGION_SETS, CONFIGS]
    parser.add_argument("kind", nargs="?", help=f"show one kind only: {', '.join(known)}")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    options = parser.parse_args(list(invocation.args))
    wanted = _kind(options.kind, known)
    shown = [component for component in found if wanted in (None, component.kind)]
    region_sets = [load_region_set(name) for name in packaged_region_sets() if wanted in (None, REGION_SETS)]
    configs = {name: summary(name) for name in packaged_configs()} if wanted in (None, CONFIGS) else {}
    if options.json:
        sets = {item.name: [asdict(region) for region in item] for item in region_sets}
        table = {"components": [asdict(item) for item in shown], "region_sets": sets, "configs": configs}
        json.dump(table, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return 0
    for kind in [kind for kind in kinds if wanted in (None, kind)]:
        sys.stdout.write(f"{kind}\n")
        for component in shown:
            if component.kind == kind:
                sys.stdout.write(f"  {component.name}: {component.summary}\n")
                sys.stdout.writelines(line for argument in component.arguments for line in argument.lines(6))
    if region_sets:
        sys.stdout.write(f"{REGION_SETS}\n")
    for item in region_sets:
        sys.stdout.write(f"  {item.name}: {len(item)} regions\n")
        sys.stdout.writelines(f"      {_described(region)}\n" for region in item)
    if configs:
        sys.stdout.write(f"{CONFIGS}\n")
        sys.stdout.writelines(f"  {name}: {text}\n" for name, text in configs.items())
    return 0


def _described(region: Region) -> str:
    """One line: the region's name, its other spellings, and whether TotalSegmentator's task ``total`` has it."""
    also = f" (also {', '.join(region.aliases)})" if region.aliases else ""
    return f"{region.name}{also}: {len(region.totalsegmentator) or 'no'} label(s) of TotalSegmentator"


def _kind(word: str | None, known: list[str]) -> str | None:
    if word is None:
        return None
    for kind in known:
        if word.lower().replace("-", "_") in (kind, f"{kind}s"):
            return kind
    raise ConfigError(f"there is no kind '{word}'.{did_you_mean(word, known)} Kinds: {', '.join(known)}.")


def summary(config: str) -> str:
    """First comment line of a packaged config."""
    first = (packaged_folder() / config).read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""
