"""The builder of corpora that TFDS knows when this module has been imported.

    import tensorflow_datasets as tfds
    import t5x_like.data.corpus.tfds_builder
    dataset = tfds.load("t5x_like_corpus/c4.en", data_dir="data/c4", split="train")

TFDS opens a finished corpus by that name without this module as well, from its files. With it the name is registered
(`tfds.list_builders()`, `tfds.builder_cls("t5x_like_corpus")`), and asking for a corpus that has not been made says
how to make it. Nothing else imports this module, so nothing else needs tensorflow-datasets.
"""

from __future__ import annotations

import numpy as np
import tensorflow_datasets as tfds

from t5x_like.data.corpus.assembling import FEATURES
from t5x_like.data.text_dataset import VERSION
from t5x_like.errors import Exit, UserError

_KINDS = {
    str: tfds.features.Text(),
    int: tfds.features.Scalar(np.int64),
    float: tfds.features.Scalar(np.float32),
}


class T5xLikeCorpus(tfds.core.GeneratorBasedBuilder):
    """Documents of a recipe; the recipe's name is the configuration."""

    VERSION = tfds.core.Version(VERSION)

    @classmethod
    def get_builder_config(cls, name: str, version: object = None) -> tfds.core.BuilderConfig:
        """A configuration of any name: recipes are the user's."""
        del version
        return tfds.core.BuilderConfig(name=name, version=cls.VERSION, description=f"Recipe {name}.")

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({name: _KINDS[kind] for name, kind in FEATURES.items()})
        )

    def download_and_prepare(self, **settings: object) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Nothing to do for a corpus that is there.

        Raises:
          UserError: it is not, and TFDS is not what makes it.
        """
        if not (self.data_path / "dataset_info.json").exists():
            raise UserError(
                "this corpus has not been made",
                where=str(self.data_path),
                help="python -m t5x_like.corpus --config=RECIPE --input=PAGES --output=DIR, then data_dir=DIR",
                code=Exit.BAD_DATA,
            )

    def _split_generators(self, dl_manager: object):
        raise NotImplementedError  # the corpus is not made here

    def _generate_examples(self):
        raise NotImplementedError
