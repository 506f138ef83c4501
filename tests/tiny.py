"""Models small enough for tests, with random weights that follow from a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def save_llama(folder: Path, tokenizer: Any, seed: int = 0, **sizes: Any) -> None:
    """A folder with a LLaMA of two layers, or other sizes, and its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    tiny = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    LlamaForCausalLM(LlamaConfig(**{"vocab_size": len(tokenizer), **tiny, **ids, **sizes})).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class Toy:
    """Eight tiny studies with two to four regions in a store, a folder with a tiny LLaMA, and what is built on them."""

    size = (16, 16, 8)
    regions = ("heart", "lung", "bone", "abdomen")

    def __init__(self, root: Path, studies: int = 8) -> None:
        self.root, self.store, self.lm = root, root / "store", root / "lm"
        self.studies = [self._study(i) for i in range(studies)]
        self._write_store()
        self._write_lm()

    def _study(self, i: int):
        from reg2rg.core.types import RegionFiles, Study

        names = self.regions[: 2 + i % 3]
        reports = {name: f"The {name} is {'large' if (i + k) % 2 else 'normal'}." for k, name in enumerate(names)}
        split = "train" if i < 5 else ("val" if i < 6 else "test")
        return Study(f"s{i}", f"p{i}", split, self.root / f"s{i}.nii.gz", RegionFiles({}), reports)

    def _write_store(self) -> None:
        import numpy as np

        from reg2rg.core.types import RegionVolume, Volume
        from reg2rg.store.store import Store

        store = Store(self.store)
        for i, study in enumerate(self.studies):
            random = np.random.default_rng(i)
            array = random.integers(-100, 100, (20, 20, 12)).astype(np.int16)
            masks = {}
            for k, name in enumerate(study.reports):
                mask = np.zeros(array.shape, bool)
                mask[2 + 4 * k : 6 + 4 * k, 4 : 8 + 2 * k, 2:10] = True
                array[mask] += 40 * k
                masks[name] = mask
            store.write(study.id, f"key{i}", RegionVolume(Volume(array, np.eye(4)), masks))
        store.write_index()

    def _write_lm(self) -> None:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast

        from reg2rg.core.task import INSTRUCTION

        special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        texts = [INSTRUCTION, *(text for study in self.studies for text in study.reports.values())]
        tokenizer.train_from_iterator(
            texts * 2,
            trainers.BpeTrainer(
                vocab_size=600,
                special_tokens=list(special.values()),
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            ),
        )
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
        save_llama(self.lm, fast, num_key_value_heads=2, max_position_embeddings=512, attention_dropout=0.1)

    def dataset(self, repeat: int = 1):
        """The studies as a dataset component."""
        from reg2rg.datasets.base import Dataset, Listing

        studies = tuple(self.studies)

        class ToyDataset(Dataset):
            def scan(self) -> Listing:
                return Listing(studies)

        return ToyDataset()

    def encoder(self, channels: int = 6, dropout: float = 0.0):
        """A tiny convolutional encoder with two tokens; with dropout its numbers depend on the random state."""
        from torch import nn

        from reg2rg.models.encoders.base import Encoder

        class ToyEncoder(Encoder):
            out_channels, num_tokens = channels, 2

            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Conv3d(1, channels, 4, stride=4)
                self.drop = nn.Dropout(dropout)

            def forward(self, volumes):
                tokens = self.conv(volumes).flatten(2).transpose(1, 2)
                return self.drop(tokens.unflatten(1, (2, -1)).mean(2))

        return ToyEncoder()

    def module(self, *, seed: int = 0, dropout: float = 0.2, lora: bool = False, **arguments):
        """A whole model with random weights that follow from the seed."""
        import torch

        from reg2rg.models.llm.causal_lm import CausalLM, LoRA
        from reg2rg.models.projectors import LinearProjector
        from reg2rg.training.module import Reg2RG
        from reg2rg.training.optimization import OptimizerConfig

        torch.manual_seed(seed)
        task, arguments = self.task(arguments)
        llm = CausalLM(str(self.lm), lora=LoRA(rank=2) if lora else None)
        options = {
            "texture": self.encoder(dropout=dropout),
            "geometry": self.encoder(4),
            "global_": "texture",
            "optimizer": OptimizerConfig(lr=1e-2, warmup_steps=2, weight_decay=0.01),
            "max_new_tokens": 12,
            "val_generate": 0,
            "seed": seed,
        }
        return Reg2RG(projector=LinearProjector, llm=llm, task=task, **(options | arguments))

    def task(self, arguments, base=None):
        """A task with what of some keyword arguments belongs to it, and the other arguments."""
        from dataclasses import fields, replace

        from reg2rg.core.task import ReportTask, Views

        own = {field.name: arguments[field.name] for field in fields(ReportTask) if field.name in arguments}
        rest = {name: value for name, value in arguments.items() if name not in own}
        return replace(base or ReportTask(views=Views(size=self.size)), **own), rest

    def data(self, module, **arguments):
        """Its data."""
        from reg2rg.data.datamodule import RegionReportDataModule

        task, arguments = self.task(arguments, module.task)
        options = {"batch_size": 2, "workers": 0, "region_dropout": 0.0} | arguments
        return RegionReportDataModule(
            self.dataset(), str(self.store), str(self.lm), module.token_counts, task=task, **options
        )
