"""METEOR against nltk with the same synonyms; the synonym table and its ways out."""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.tokenize import NLTKWordTokenizer
from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer
from nltk.translate.meteor_score import single_meteor_score

from reg2rg.core.errors import ConfigError
from reg2rg.evaluation.metrics import synonyms as module
from reg2rg.evaluation.metrics.meteor import meteor, meteor_tokens
from reg2rg.evaluation.metrics.synonyms import TABLE, SynonymReader, names_of

READER = SynonymReader.from_table()
# Inflections, synonyms of each other, words twice, marks: whatever the stages of matching can disagree about.
WORDS = (
    "The the lung lungs pulmonary normal natural regular Normal, is are was be nodule nodules nodular observed "
    "observe detected notice noticed big large larger enlarged small little heart hearts cardiac mass masses "
    "thickening thicken stop halt check good well seen see watched view views 4.5 mm (left) CT. No no effusion"
)
report = st.lists(st.sampled_from([*WORDS.split(), "normal. The", "observed. No", "CT. In", "mm. 4"]), max_size=40).map(
    " ".join
)


class NoSynonyms:
    def synsets(self, word):
        return []


def plain_tokens(text):
    """As in the publication, without any cache."""
    parameters = PunktParameters()
    parameters.abbrev_types, parameters.sent_starters = {"ct"}, {"both", "in", "it", "the", "there"}
    words = NLTKWordTokenizer()
    return [token for one in PunktSentenceTokenizer(parameters).tokenize(text) for token in words.tokenize(one)]


def theirs(reference, prediction, wordnet):
    return single_meteor_score(
        plain_tokens(reference), plain_tokens(prediction), wordnet=wordnet, alpha=0.9, beta=3.0, gamma=0.5
    )


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(report, report), min_size=1, max_size=3))
def test_equal_to_nltk(texts):
    references, predictions = map(list, zip(*texts, strict=True))
    for source, wordnet in (("bundled", READER), (None, NoSynonyms())):
        expected = [theirs(reference, prediction, wordnet) for reference, prediction in texts]
        assert meteor(references, predictions, source).tolist() == pytest.approx(expected, abs=1e-12)


# The first may take the short cut for plain sentences, the second is full of what the rules are about.
pieces = [". A", "b. ", "CT. It", "ct. On", " 4. ", "? ", " A. B. ", "..  ", "a-b", "4.5", "1,5", "e.g.", "a: ", "b, "]
plain = st.lists(
    st.sampled_from([*"aB1   .,:;()%+*/?!<>=-", *pieces, "3; ", "cannot", "non-cannot ", "gonna, ", "lemme."]),
    max_size=30,
).map("".join)
marked = st.lists(
    st.sampled_from([*"ab1  .,:;!?()[]<>-'`\"\n%$&*", "--", "..", "''", "'s ", "n't ", "cannot", "wanna", "CT. ", "…"]),
    max_size=25,
).map("".join)


@settings(deadline=None, max_examples=1500)
@given(st.one_of(plain, marked, st.text(max_size=60)))
def test_tokens_are_nltks_in_lower_case(text):
    assert meteor_tokens(text) == [token.lower() for token in plain_tokens(text)]


def test_published_reports_score_as_in_nltk(shared_reports):
    import pandas as pd

    table = pd.read_csv(shared_reports / "radgenome" / "lung_reports.csv", keep_default_na=False, dtype=str)[:60]
    references, predictions = table["GT_combined_report"].tolist(), table["Pred_combined_report"].tolist()
    expected = [theirs(*pair, READER) for pair in zip(references, predictions, strict=True)]
    assert meteor(references, predictions).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [("Seen on CT. No mass.", 1), ("Seen on CT. The mass is big.", 2), ("Seen on MR. No mass.", 2)],
)
def test_ct_is_no_end_of_a_sentence_but_before_six_words(text, sentences):
    assert sum(token == "." for token in meteor_tokens(text)) == sentences


def test_values_known_by_hand():
    assert meteor(["Normal.", "a", "", "a"], ["Normal.", "b", "", ""]).tolist() == [0.9375, 0, 0, 0]
    assert meteor([], []).shape == (0,)


def test_synonyms_count_only_if_asked_for():
    assert meteor(["stop"], ["halt"])[0] == 0.5
    assert meteor(["stop"], ["halt"], None)[0] == 0


def test_lengths_must_be_equal():
    with pytest.raises(ValueError, match="1 references and 2 predictions"):
        meteor(["a"], ["a", "b"])


# the table


def test_table_is_the_one_that_the_figures_were_checked_with():
    text = lzma.decompress(TABLE.read_bytes())
    assert hashlib.sha256(text).hexdigest() == "ed565e464117e5a340447e650b8e686df3b091ec713204bfa3e88f06be51a702"
    assert b"Princeton University" in text[:300]
    assert TABLE.with_name("WORDNET-LICENSE").is_file()
    assert TABLE.stat().st_size < 900_000


def test_table_is_built_from_wordnets_files():
    folder = Path(os.environ.get("REG2RG_WORDNET", "/usr/share/wordnet"))
    if not (folder / "data.noun").is_file():
        pytest.skip(f"WordNet's files are not in {folder} (set REG2RG_WORDNET, or apt-get install wordnet-base)")
    table = SynonymReader.from_wordnet(folder).to_table()
    assert lzma.decompress(table) == lzma.decompress(TABLE.read_bytes())


def test_reader_knows_inflections():
    assert "lung" in READER.names("lungs")
    assert "good" in READER.names("better")  # irregular
    assert "thicken" in READER.names("THICKENED")
    assert READER.names("stopping") >= {"stop", "halt"}
    assert READER.names("qwertz") == frozenset()
    assert {"stop", "halt"} <= {lemma.name() for synset in READER.synsets("stop") for lemma in synset.lemmas()}


@pytest.fixture
def wordnet(tmp_path):
    """A WordNet of five sets in its own format."""
    folder = tmp_path / "wordnet"
    folder.mkdir()
    sets = {
        "noun": [
            "00000001 03 n 02 lung 0 Lunge 0 001 @ 00000002 n 0000 | gloss",
            "00000002 03 n 01 lung 1 000 | again",
        ],
        "verb": ["00000003 30 v 03 halt 0 stop 0 hold_on 1 000 | gloss", "00000004 30 v 01 Hold_fast 0 000 | no word"],
        "adj": ["00000005 00 a 02 afloat(p) 0 adrift 0 000 | gloss"],
        "adv": [],
    }
    for pos, lines in sets.items():
        (folder / f"data.{pos}").write_text("  1 This software is licensed\n" + "".join(f"{line}\n" for line in lines))
        (folder / f"{pos}.exc").write_text("lungen lung\n" if pos == "noun" else "")
    return folder


def test_builder_reads_wordnets_format(wordnet, tmp_path):
    reader = SynonymReader.from_wordnet(wordnet)
    assert reader.names("lungs") == {"lung", "Lunge"}
    assert reader.names("lungen") == {"lung", "Lunge"}
    assert reader.names("stopped") == frozenset()  # no rule undoes the doubled letter
    assert reader.names("stops") == {"halt", "stop"}
    assert reader.names("hold_on") == {"halt", "stop"}
    assert reader.names("hold_fast") == frozenset()
    assert reader.names("afloat") == {"afloat", "adrift"}
    table = tmp_path / "table.xz"
    table.write_bytes(reader.to_table())
    assert table.read_bytes() == SynonymReader.from_wordnet(wordnet).to_table()
    assert SynonymReader.from_table(table).to_table() == table.read_bytes()
    assert b"Lunge lung" in lzma.decompress(table.read_bytes())
    assert meteor(["adrift"], ["afloat"], wordnet)[0] == meteor(["adrift"], ["afloat"], table)[0] == 0.5


def test_tool_builds_and_checks(wordnet, tmp_path):
    tool = Path(__file__).resolve().parents[4] / "tools" / "build_synonyms.py"
    table = tmp_path / "table.xz"

    def run(*options):
        command = [sys.executable, str(tool), *map(str, options), "--output", str(table)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert run(wordnet, "--check").returncode == 1
    built = run(wordnet)
    assert built.returncode == 0
    assert "sha256" in built.stdout
    assert run(wordnet, "--check").returncode == 0
    failed = run(tmp_path)
    assert failed.returncode == 2
    assert "data.noun" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_missing_table_names_three_ways_out(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "TABLE", tmp_path / "gone.xz")
    with pytest.raises(ConfigError) as caught:
        meteor(["a"], ["b"])
    for part in ("gone.xz", "reinstall reg2rg", "apt-get install wordnet-base", "synonyms=None", "METEOR-es"):
        assert part in str(caught.value)


@pytest.mark.parametrize("content", [b"no xz", lzma.compress(b"[noun]\na b\n"), lzma.compress(b"\xff\xfe")])
def test_damaged_table_is_refused(tmp_path, content):
    table = tmp_path / "table.xz"
    table.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(str(table))):
        names_of(table)


def test_unknown_sources_are_refused(wordnet):
    with pytest.raises(ConfigError, match=r"'wordnet'; expected 'bundled', 'nltk', None"):
        names_of("wordnet")
    (wordnet / "data.verb").write_text("00000003 30 v zz halt\n")
    with pytest.raises(ConfigError, match="not in the format"):
        names_of(wordnet)


def test_nltks_own_wordnet(monkeypatch):
    class Corpus:
        def ensure_loaded(self):
            raise LookupError("not here")

    monkeypatch.setattr("nltk.corpus.wordnet", Corpus())
    module._names_of_nltk.cache_clear()
    with pytest.raises(ConfigError, match=r"nltk.download\('wordnet'\)"):
        names_of("nltk")
    Corpus.ensure_loaded = lambda self: None
    Corpus.synsets = lambda self, word: READER.synsets(word)
    assert meteor(["stop"], ["halt"], "nltk")[0] == 0.5
    module._names_of_nltk.cache_clear()
