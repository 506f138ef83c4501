#!/usr/bin/env bash
# A tokenizer that a folder of model type qwen2 brings is rebuilt from its vocabulary, whatever class the folder names.
#
# transformers 5.24.0, tokenizers 0.23.3. A tokenizer of whole words with BOS before a text, saved beside a config.json.
# Guess: AutoTokenizer takes the class of tokenizer_config.json (the plain one), and tokenizer.json as it is.
# Seen:  for llama, gemma and gpt_neox it does. For qwen2 it makes a Qwen2Tokenizer of the vocabulary: byte-level BPE
#        without merges, so that every word vanishes and BOS alone is left; no error, no warning. So it is for gpt_neox
#        where no class is named, and there BOS goes too.
# So:    whoever loads a tokenizer has to try a few words. PreTrainedTokenizerFast.from_pretrained reads the file as it is.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet transformers==5.24.0 tokenizers==0.23.3
cd "$work"
cat > ask.py <<'PY'
import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

words = {word: number for number, word in enumerate(("<unk>", "<s>", "</s>", "the", "heart"))}
made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
made.pre_tokenizer = pre_tokenizers.Whitespace()
made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
saved = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
found = {}
for family in ("llama", "gemma", "gpt_neox", "qwen2"):
    for named in (True, False):
        folder = Path(f"{family}_{named}")
        saved.save_pretrained(folder)
        (folder / "config.json").write_text(json.dumps({"model_type": family}))
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        if not named:
            settings.pop("tokenizer_class")
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        loaded = AutoTokenizer.from_pretrained(folder)
        found[family, named] = loaded("the heart")["input_ids"]
        print(family, "class named:" if named else "no class:", type(loaded).__name__, found[family, named])
assert all(found[family, True] == [1, 3, 4] for family in ("llama", "gemma", "gpt_neox")), found
assert found["qwen2", True] == found["qwen2", False] == [1], found
assert found["gpt_neox", False] == [], found
assert PreTrainedTokenizerFast.from_pretrained("qwen2_True")("the heart")["input_ids"] == [1, 3, 4]
PY
HF_HUB_OFFLINE=1 ./venv/bin/python ask.py
echo "unchanged"
