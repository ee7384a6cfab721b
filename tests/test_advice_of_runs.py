"""Each advising sentence outside config/ has a test that follows the advice, or a reason why none can."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.advice import ROOT, sentences

DECLARED = "tests/test_advice.py::test_advice_mends_what_it_is_about"
REFUSED_RUNS = "tests/training/test_refused_runs.py::test_advice_makes_the_run_train"
WEIGHTS = "tests/training/test_weights_runs.py::test_advice_makes_the_run_train"
TUNED = "tests/training/test_tuned_runs.py::test_advice_makes_the_run_train"
REFUSED_DATA = "tests/loaders/test_refused_data.py::"
FROM_S3 = "tests/archives/test_trained_from_s3.py::test_advice_is_followed"
NETWORKS = "tests/test_architectures.py::"
TYPED = {
    "may smooth only one of the two losses": DECLARED,
    "makes targets 0 or 1 again": DECLARED,
    "recompile the model": DECLARED,
    "finds nothing to switch": DECLARED,
    "changes the learning rate over the run": DECLARED,
    "is added to scheduler.t_warmup": DECLARED,
    "is not an option of sbatch": "tests/launch/test_slurm.py::test_options_win_over_the_preset",
    "Replace or delete it; `python -m tools.verify`": REFUSED_DATA + "test_a_damaged_image",
    "is not built here": "tests/test_advice.py::test_advice_where_the_decoder_is_not_built",
    "baseline JPEGs of gray": "tests/tools/test_seek.py::test_it_says_what_has_no_table",
    "... directly in it": "tests/tools/test_folding.py::test_folding",
    "an FFCV file": REFUSED_DATA + "test_ffcvs_files_in_an_image_folder",
    "holds MDS shards, not images": REFUSED_RUNS,
    "largest shard has": REFUSED_DATA + "test_a_cache_limit_below_a_shard",
    "MB are free, but": REFUSED_DATA + "test_too_little_shared_memory_for_the_workers",
    "decoded images take": REFUSED_DATA + "test_too_little_memory_for_packed_images",
    "or copy one split alone": REFUSED_DATA + "test_a_copy_of_one_split",
    "cannot be copied to": REFUSED_DATA + "test_a_cache_folder_that_cannot_be_written",
    "; make the run longer": REFUSED_RUNS,
    "shards are cached in a folder of this machine": REFUSED_RUNS,
    "streaming needs a cache folder": REFUSED_RUNS,
    "for folders of images set is_streaming": REFUSED_RUNS,
    "Use one:": "tests/test_readme.py::test_command",
    "a forecast is of training": "tests/tools/test_forecast.py::test_advice_is_followed",
    "to forecast without any": "tests/tools/test_forecast.py::test_advice_is_followed",
    "the data set has an image of class": REFUSED_RUNS,
    "but the data set has ": REFUSED_RUNS,
    "already has checkpoints": REFUSED_RUNS,
    "its configuration differs": REFUSED_RUNS,
    "already exists": REFUSED_RUNS,
    "use another one: runs_folder=FOLDER": REFUSED_RUNS,
    ": type scheduler.t_warmup=": "tests/training/test_clock.py::test_a_data_set_of_another_size",
    "decode too slowly": "tests/training/test_data_wait.py::test_advice_names_the_next_setting",
    "the trainer decodes the images itself": "tests/training/test_data_wait.py::test_advice_names_the_next_setting",
    "needs a C compiler": "tests/training/test_refused_runs.py::test_a_machine_without_a_compiler",
    "torch sees no GPU here": REFUSED_RUNS,
    "needs a GPU, but this run uses the CPU": REFUSED_RUNS,
    "nothing is left of": REFUSED_RUNS,
    "train its weights on the new classes": "tests/training/test_fitting.py::test_another_number_of_classes",
    "is in use by another run": "tests/training/test_refused_runs.py::test_a_run_that_is_in_use",
    "auto needs the data": "tests/tools/test_model_summary.py::test_a_number_of_classes_that_the_data_give",
    "name no classes to count": WEIGHTS,
    "to start from a file of weights": WEIGHTS,
    "a ...'s; type model.name=...": WEIGHTS,
    "whose tensors no other network has": WEIGHTS,
    "is not a timm model's": WEIGHTS,
    "untrained head cannot be evaluated": WEIGHTS,
    "outputs to replace": WEIGHTS,
    "measured on images resized with": "tests/training/test_weights.py::test_a_hub_folder",
    "starts from a bias of the last layer": NETWORKS + "test_a_head_without_bias",
    "is for the blocks of torchvision": NETWORKS + "test_what_a_network_cannot_do",
    "names weights; type": NETWORKS + "test_what_a_network_cannot_do",
    "does not work with images of": "tests/tools/test_other_networks.py::test_what_timms_transformer_cannot_do",
    "keep given, but ": WEIGHTS,
    "which model.freeze keeps": TUNED,
    "to start a new training from its weights": TUNED,
    "which is not data": "tests/training/test_saved.py::test_no_way_to_a_checkpoint_runs_it",
    "save_folder=null to keep no checkpoints": REFUSED_RUNS,
    "is in a store": FROM_S3,
    "holds archives instead of MDS shards": FROM_S3,
    "has no file locks": "tests/loaders/test_shard_cache.py::test_a_folder_without_locks",
}
NOT_TYPED = {
    ": set train_dataset.batch_size=": "reached by callers of build_imagenet_dataspec alone; a run says more",
    ", which is there": "a file of torchvision's",
    "#!/usr/bin/env bash": "a script, which tests/launch/test_slurm.py runs",
    "further option": "the help of an option",
    "avoids our decoder": "a decoder that crashes the process",
    "give a container more with": "a container's shared memory",
    "archives in S3 are trained on": "reached by callers of build_imagenet_dataspec alone: config says it first",
    "no data set was named": "the same",
    "pip install -c constraints.txt": "a package index",
    "pip install --force-reinstall": "the same",
    "this runs in one process": "several ranks; the command is the one without a launcher",
    "a learning rate is for training": "the same words as tools.forecast's",
    "is a recipe that this run does not use": "a recipe that is written to must be the run's",
    "no space left": "a full disk",
    "to load only its weights": "a checkpoint that was taken apart",
    "set precision=fp32": "a run in fp16 on a GPU",
    "runs_folder: ... cannot be written": "a folder that root may not write to",
}


def test_every_advising_sentence_is_listed() -> None:
    said = sentences("common", "loaders", "training", "tools", "launch", "recipes", "main.py", "model.py", "data.py")
    for sentence in said:
        assert [part for part in TYPED | NOT_TYPED if part in sentence], f"no test types this: {sentence}"
    for part in TYPED | NOT_TYPED:
        assert any(part in sentence for sentence in said), f"nothing says this any more: {part}"


@pytest.mark.parametrize("test", sorted(set(TYPED.values())))
def test_the_tests_exist(test: str) -> None:
    file, name = test.split("::")
    assert f"def {name}(" in Path(ROOT / file).read_text()
