#!/usr/bin/env bash
# Splitting special tokens is no guarantee: a trained BPE vocabulary can write ordinary text as its own EOS.
#
# tokenizers 0.23.3 with transformers 5.24.0. A BPE tokenizer is trained on texts in which its EOS string occurs.
# Guess: with `split_special_tokens=True` the string `<end>` in a text is written with ordinary tokens, never with
#        the special one.
# Seen:  training learns merges whose result is the string of the special token, and a merge's result has the id that
#        the vocabulary has for this string: that of EOS. So `<end>` in a text is EOS with either setting. Trained on
#        texts without the string the setting does what it says.
# So:    whoever feeds foreign text has to look for special ids after encoding, whatever the setting.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet tokenizers==0.23.3 transformers==5.24.0
cd "$work"
HF_HUB_OFFLINE=1 ./venv/bin/python - <<'PY'
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast


def trained(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(special_tokens=["<end>"], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def ids(tokenizer, **options):
    return tokenizer("a <end> b", add_special_tokens=False, **options)["input_ids"]


seen = trained(["a <end> b <end> . A"] * 3)
unseen = trained(["a < e n d > b . A end <e nd>"] * 3)
for name, tokenizer in (("EOS string in the training text", seen), ("not in it", unseen)):
    eos = tokenizer.eos_token_id
    plain, split = ids(tokenizer), ids(tokenizer, split_special_tokens=True)
    print(f"{name}: EOS {eos}; {plain} by default, {split} with split_special_tokens")
assert seen.eos_token_id in ids(seen, split_special_tokens=True)
assert unseen.eos_token_id in ids(unseen)
assert unseen.eos_token_id not in ids(unseen, split_special_tokens=True)
PY
echo "unchanged"
