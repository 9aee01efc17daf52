"""seqio's data path: raw text, or token arrays in memory, to packed span-corruption batches of 512/114.

  python -m benchmarks.peers.seqio_pipeline --t5=CHECKOUT --spm=spiece.model --text=lines.txt
  python -m benchmarks.peers.seqio_pipeline --t5=CHECKOUT --spm=spiece.model --tokens=documents.npz

Task, packing and feature converter are the installed seqio's; the denoising steps come from one file of a checkout
of google-research/text-to-text-transfer-transformer. Prints one JSON line. Needs seqio (and with it TensorFlow).
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import os
import sys
import time
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--t5", required=True, help="checkout that holds t5/data/preprocessors.py")
    parser.add_argument("--spm", required=True, help="SentencePiece model with pad 0, eos 1, unk 2")
    parser.add_argument("--text", help="one document a line")
    parser.add_argument("--tokens", help=".npz with `tokens` and `offsets` of documents, instead of --text")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=20.0, help="measure about this long")
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    import seqio
    import tensorflow as tf

    t5 = load_preprocessors(Path(args.t5))
    vocabulary = seqio.SentencePieceVocabulary(args.spm, 100)
    features = {
        "inputs": seqio.Feature(vocabulary=vocabulary, add_eos=True, required=False),
        "targets": seqio.Feature(vocabulary=vocabulary, add_eos=True),
    }
    corrupt = [t5.span_corruption, seqio.preprocessors.append_eos_after_trim]
    rename = functools.partial(seqio.preprocessors.rekey, key_map={"inputs": None, "targets": "text"})
    if args.text:
        source = seqio.TextLineDataSource({"train": [args.text]})
        wrap = [lambda ds: ds.map(lambda line: {"text": line}, num_parallel_calls=tf.data.AUTOTUNE), rename]
        steps = [*wrap, seqio.preprocessors.tokenize, *corrupt]
    else:
        with np.load(args.tokens, allow_pickle=False) as stored:
            ragged = tf.RaggedTensor.from_row_splits(stored["tokens"], stored["offsets"])
        source = seqio.FunctionDataSource(
            lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensor_slices(
                {"targets": ragged}
            ).map(lambda x: {"inputs": tf.constant([], tf.int32), "targets": x["targets"]}),
            splits=["train"],
        )
        steps = corrupt
    seqio.TaskRegistry.add(
        "bench", source=source, preprocessors=steps, output_features=features, metric_fns=[]
    )
    dataset = seqio.get_dataset(
        "bench",
        task_feature_lengths={"inputs": 512, "targets": 114},
        feature_converter=seqio.EncDecFeatureConverter(pack=True),
        dataset_split="train",
        shuffle=False,
        num_epochs=None,
        seed=0,
        batch_size=args.batch,
    ).as_numpy_iterator()

    for _ in range(4):
        next(dataset)
    rows = tokens = 0
    cpu, tick = time.process_time(), time.perf_counter()
    while time.perf_counter() - tick < args.seconds:
        inputs = next(dataset)["encoder_input_tokens"]
        rows, tokens = rows + len(inputs), tokens + int((inputs != 0).sum())
    elapsed, cpu = time.perf_counter() - tick, time.process_time() - cpu
    print(
        json.dumps(
            {
                "what": f"seqio {seqio.__version__}, tensorflow {tf.__version__}",
                "input_tokens_per_s": tokens / elapsed,
                "input_tokens_per_cpu_s": tokens / cpu,
                "fill": tokens / (rows * 512),
            }
        )
    )


def load_preprocessors(checkout: Path):
    """The module t5/data/preprocessors.py alone, without the package around it."""
    path = checkout / "t5" / "data" / "preprocessors.py"
    spec = importlib.util.spec_from_file_location("t5_preprocessors", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
