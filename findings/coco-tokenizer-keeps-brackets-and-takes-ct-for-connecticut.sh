#!/usr/bin/env bash
# The tokenizer behind most published BLEU-4 and CIDEr keeps the brackets it lists for removal, and takes CT for a state.
#
# pycocoevalcap 1.2.0 (its stanford-corenlp-3.4.1 jar ships in the package), Java 17.
# Guess: its list of punctuation holds -LRB- and -RRB-, so "(small)" becomes "small"; "chest CT." gives "chest ct".
# Seen:  the jar is run with -lowerCase, which writes "-lrb-"; the list is in capitals, so brackets stay as tokens. A
#        sentence that ends in "CT." gives the token "ct." (Connecticut's abbreviation) unless it is the last of the text,
#        and with it the end of that sentence; "MRI." gives "mri". "CT" and "CT." are thus two words for every n-gram score.
# So:    a tokenizer that claims comparability has to keep both habits, or its chest-CT figures differ from published ones.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet pycocoevalcap==1.2.0
cd "$work"
./venv/bin/python - <<'PY'
from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS, PTBTokenizer

texts = {
    "brackets": "A nodule (small) is seen",
    "inside": "Nodule on chest CT. No effusion.",
    "last": "Nodule on chest CT.",
    "other": "Nodule on chest MRI. No effusion.",
}
out = PTBTokenizer().tokenize({name: [{"caption": text}] for name, text in texts.items()})
out = {name: tokens[0] for name, tokens in out.items()}
print(out)
assert {"-LRB-", "-RRB-"} <= set(PUNCTUATIONS)
assert out["brackets"] == "a nodule -lrb- small -rrb- is seen", out
assert out["inside"] == "nodule on chest ct. no effusion", out
assert out["other"] == "nodule on chest mri no effusion", out
assert out["last"] == "nodule on chest ct.", out
PY
echo "unchanged"
