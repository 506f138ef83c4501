#!/usr/bin/env bash
# One and the same config resolves its references when it is given as text, and fails when it is given as a mapping.
#
# jsonargparse 4.53.0 with omegaconf 2.4.0, parser_mode "omegaconf+" with omegaconf_absolute_to_relative_paths.
# Guess: `parse_object(mapping)` and `parse_args(["--config", text])` give equal results for equal content.
# Seen:  a reference to a top-level key from inside a subclass's init_args resolves in text; in the mapping it is looked
#        for below the subclass and raises InterpolationKeyError. A reference beside it, outside init_args, resolves in
#        both.
# So:    a program that folds configs itself still has to hand them to the parser as text, or resolve them first.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet 'jsonargparse[signatures,omegaconf]==4.53.0' omegaconf==2.4.0
cd "$work"
cat > ask.py <<'PY'
import json

from jsonargparse import ArgumentParser, set_parsing_settings

set_parsing_settings(omegaconf_absolute_to_relative_paths=True)


class Encoder:
    def __init__(self, width: int = 1):
        self.width = width


def parser():
    made = ArgumentParser(parser_mode="omegaconf+", exit_on_error=False)
    made.add_argument("--size", type=int)
    made.add_argument("--twice", type=int)
    made.add_argument("--encoder", type=Encoder)
    made.add_argument("--config", action="config")
    return made


def outcome(parse):
    try:
        found = parse()
        return found.twice, found.encoder.init_args.width if found.encoder else None
    except Exception as error:
        return type(error).__name__


inside = {"size": 3, "encoder": {"class_path": "__main__.Encoder", "init_args": {"width": "${size}"}}}
beside = {"size": 3, "twice": "${size}"}
for name, config, text, mapping in (
    ("inside init_args", inside, (None, 3), "InterpolationKeyError"),
    ("beside it", beside, (3, None), (3, None)),
):
    found = (
        outcome(lambda config=config: parser().parse_args(["--config", json.dumps(config)])),
        outcome(lambda config=config: parser().parse_object(config)),
    )
    print(f"{name}: text {found[0]}, mapping {found[1]}")
    assert found == (text, mapping), found
PY
./venv/bin/python ask.py
echo "unchanged"
