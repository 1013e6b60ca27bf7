"""The commands that train and study, and those that keep the record."""

import argparse
import os
import sys
from contextlib import chdir
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from patsim_utils.environment import ROOT
from patsim_utils.errors import InputError, clip
from patsim_utils.tool import models, work
from patsim_utils.tool.commands import checks

if TYPE_CHECKING:
    from patsim_utils.config import Parameters


def run_study(words: argparse.Namespace) -> int:
    """`patsim study`."""
    asked = _parameters(words).model_copy(update={"replace": words.replace})
    clock = work.Clock()
    from patsim_utils.study import notebooks

    asked = notebooks.check(asked, notebooks=words.notebooks, preset=words.preset)
    os.environ["OMP_NUM_THREADS"] = str(work.chosen_threads(words.threads, clock))  # of the notebooks' processes
    try:
        notebooks.study(asked, notebooks=words.notebooks)
    except notebooks.StudyError as error:
        return checks.tell(error, 1)
    return 0


def run_ablation(words: argparse.Namespace) -> int:
    """`patsim ablation`: trains the variants, then runs the notebook that compares them."""
    if {"share", "variants"} & {key for key, _ in words.p}:
        raise InputError("-p: share and variants are set with --share and --variants")
    asked = _parameters(words).model_copy(update={"variants": words.variants, "share": words.share})
    clock = work.Clock()
    from patsim_utils.experiments import ablation
    from patsim_utils.experiments.variants import read_variants
    from patsim_utils.study import notebooks
    from patsim_utils.training import runs

    asked = notebooks.check(asked, notebooks=["5_ablation"], preset=words.preset)
    variants = read_variants(words.variants, asked.config)
    os.environ["OMP_NUM_THREADS"] = str(work.chosen_threads(words.threads, clock))
    folder = runs.run_folder(f"{asked.name}-{words.variants}")
    train = partial(ablation.run_variants, variants, folder, share=words.share, processes=words.processes)
    try:
        notebooks.study(asked, notebooks=["5_ablation"], before=train)
    except (notebooks.StudyError, ablation.VariantsError) as error:
        return checks.tell(error, 1)
    return 0


def run_train(words: argparse.Namespace) -> int:
    """`patsim train`: the training of notebook 2 alone, also as a process that torchrun started."""
    asked = _parameters(words)
    clock = work.Clock()
    from patsim_utils.data.splits import load
    from patsim_utils.study import explore, notebooks
    from patsim_utils.training import devices, runs
    from patsim_utils.training.fit import fit

    try:
        with chdir(ROOT):  # where the paths in `asked` start
            with devices.processes().main_process_first():  # which may fetch data and backbone
                asked = notebooks.check(asked, notebooks=[])
                config = asked.config
                splits = load(config.data, protocol=config.protocol, seed=config.seed)
            if "RANK" not in os.environ:  # torchrun has shared the cores out
                print(work.use_threads(words.threads, clock), file=sys.stderr, flush=True)
            folder = runs.run_folder(asked.name)
            metrics = fit(splits, config, folder, replace=words.replace, report_to=asked.report_to)
    except FloatingPointError as error:
        return checks.tell_once(error, 1)
    except RuntimeError as error:
        if not devices.lost(error):
            raise
        return checks.tell_once(f"another device's process ended ({clip(error)})", 1)
    devices.processes().destroy_process_group()
    if checks.is_first_process():
        print(explore.summary(metrics))
    return 0


def _teacher(name: str) -> Path:
    """The folder of a model that ships, or of a run, with its model."""
    if name in models.shipped():
        return models.model_folder(name)
    run = Path(name).resolve()
    checks.check_readable(run)
    return models.model_folder(run=run)


def run_distil(words: argparse.Namespace) -> int:
    """`patsim distil`: a teacher labels pairs that nobody rated, a student learns from them, too."""
    asked = _parameters(words)
    teachers = [_teacher(name) for name in words.teacher]
    titles = words.titles and words.titles.absolute()  # a path of the command's own folder
    clock = work.Clock()
    from patsim_utils.data.splits import load
    from patsim_utils.study import explore, notebooks
    from patsim_utils.training import runs
    from patsim_utils.training.distil import distil

    work.use_threads(words.threads, clock)
    try:
        with chdir(ROOT):  # where the paths in `asked` start
            asked = notebooks.check(asked, notebooks=[])
            config = asked.config
            splits = load(config.data, protocol=config.protocol, seed=config.seed)
            folder = runs.run_folder(asked.name)
            metrics = distil(
                splits, config, teachers, folder, anchors=words.anchors, titles=titles, replace=words.replace
            )
    except FloatingPointError as error:
        return checks.tell(error, 1)
    print(explore.summary(metrics))
    return 0


def run_readme(words: argparse.Namespace) -> None:
    """`patsim readme`."""
    from patsim_utils.study.pages import record

    record.write_readme()


def run_check_name(words: argparse.Namespace) -> None:
    """`patsim check-name`."""
    from patsim_utils.study.parameters import check_study_name

    check_study_name(words.name)


def run_record(words: argparse.Namespace) -> None:
    """`patsim record`."""
    run_check_name(words)
    from patsim_utils.study.pages import record

    record.record(words.name)


def _parameters(words: argparse.Namespace) -> "Parameters":
    """The parameters of a study; InputError where something is wrong with one of them."""
    from patsim_utils.study.parameters import parameters

    if words.data not in (None, "sample", "kaggle"):
        checks.check_readable(Path(words.data))
    return parameters(words.preset, data=words.data, name=words.name or words.preset, settings=words.p)
