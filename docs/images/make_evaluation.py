"""Draw evaluation.png: plots that reg2rg evaluate makes, of synthetic reports and a synthetic model.

python docs/images/make_evaluation.py [--out docs/images/evaluation.png]

References are reports of phantoms, without any patient's data. The model is made up: paragraph by paragraph it writes
the reference, or in two of five cases the paragraph of another phantom, and it takes a region for another now and then.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
from PIL import Image

from reg2rg.core.regions import load_region_set
from reg2rg.core.report import write_report
from reg2rg.evaluation.engine import Settings, evaluate
from reg2rg.evaluation.labelers import RuleLabeler
from reg2rg.evaluation.pairs import Pair, pair_texts
from reg2rg.evaluation.reading import Reports
from reg2rg.extras.phantom.patient import draw_patient
from reg2rg.extras.phantom.sentences import write_report as sentences_of
from reg2rg.show.plots import draw_plots, png

WRONG, MISTAKEN, LEFT_OUT = 0.4, 0.04, 0.02
WIDTH = 1500


def pairs(studies: int) -> list[Pair]:
    """References of phantoms, and what the model makes of them."""
    random, regions = np.random.default_rng(0), load_region_set("radgenome")
    texts = [
        {region: " ".join(sentences) for region, sentences in sentences_of(draw_patient(0, number)).items()}
        for number in range(studies)
    ]
    found = []
    for number, own in enumerate(texts):
        given = [str(region) for region in random.permutation(list(own))]
        named, said = list(given), []
        for region in given:
            other = texts[random.integers(studies)].get(region, own[region])
            said.append(other if random.random() < WRONG else own[region])
        if random.random() < MISTAKEN * len(given):
            a, b = random.choice(len(given), 2, replace=False)
            named[a], named[b] = named[b], named[a]
        kept = len(given) - int(random.random() < LEFT_OUT * len(given))
        reference = write_report(given, [own[region] for region in given])
        prediction = write_report(named[:kept], said[:kept])
        found.append(pair_texts(f"phantom_{number}", str(number), reference, prediction, regions, tuple(given)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("evaluation.png"))
    parser.add_argument("--studies", type=int, default=200)
    options = parser.parse_args()
    studies = pairs(options.studies)
    described = {region for pair in studies for region in pair.given}
    regions = tuple(name for name in load_region_set("radgenome").names if name in described)
    evaluation = evaluate("synthetic model", Reports(studies, regions, ()), Settings(labeler=RuleLabeler()))
    figures = {name: Image.open(io.BytesIO(png(figure))) for name, figure in draw_plots(evaluation).items()}
    print(", ".join(f"{name} {image.size}" for name, image in figures.items()))
    half = WIDTH // 2
    left, *right = (figures[name].convert("RGB") for name in ("numbers", "confusion", "words"))
    left, *right = (
        one.resize((half, round(one.height * half / one.width)), Image.Resampling.LANCZOS) for one in (left, *right)
    )
    whole = Image.new("RGB", (WIDTH, max(left.height, sum(one.height for one in right))), "white")
    whole.paste(left, (0, 0))
    top = 0
    for one in right:
        whole.paste(one, (half, top))
        top += one.height
    whole.quantize(255, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(options.out, optimize=True)
    print(f"{options.out}: {options.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
