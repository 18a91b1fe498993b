"""Run a study: train, code the images, analyse, report. Existing results are not made again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jointiq.command_line import override
from jointiq.console import NOTHING, progress_bar
from jointiq.data.image_sets import ImageSet, check_disjoint, link_folder, name_and_folder, read_listed, read_set
from jointiq.data.images import named_images
from jointiq.data.prepared import LIST, MANIFEST, open_patches
from jointiq.errors import ConfigError, UserError
from jointiq.evaluation.codecs.pillow import find_codecs
from jointiq.evaluation.codecs.programs import PROGRAMS
from jointiq.evaluation.codecs.run import run_anchors
from jointiq.evaluation.comparison import find_curves
from jointiq.evaluation.rd import RDCurve, read_rd
from jointiq.evaluation.stopwatch import device_text
from jointiq.runtime import pick_device
from jointiq.studies.analyses import check_analyses, get_analysis
from jointiq.studies.context import Context, Findings
from jointiq.studies.measuring import measure_trained
from jointiq.studies.plan import DEMO, Scale, Study
from jointiq.studies.report import main_rows, main_table, write_readme, write_results
from jointiq.studies.training import Training, train, trainings


@dataclass(frozen=True)
class Options:
    """Options of a command beside the study and its scale.

    Attributes:
        train, val, test: folders, ``DIR`` or ``NAME=DIR``. All of train are one set, all of val another; each of test
            is a set of its own. Without train: the embedded photographs.
        patches: folder of patches cut in advance, in place of train; its manifest lists the training images.
        published: ``SET=DIR``, folders of RD files of others on a test set.
        manifests: lists of images that must not be measured on.
        overrides: added to every training.
        results: folder for trained models and everything else that can be made again.
        output: folder for the results that are kept; None: ``experiments/NAME/results/SCALE``, or a folder in
            ``results`` for the scale ``demo``, and if there are overrides, because these make another study.
        jobs: processes at a time.
        device: device for coding images: auto, cpu, cuda or cuda:N.
    """

    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    patches: Path | None = None
    published: tuple[str, ...] = ()
    manifests: tuple[Path, ...] = ()
    overrides: tuple[str, ...] = ()
    results: Path = Path("results")
    output: Path | None = None
    jobs: int = 1
    device: str = "auto"

    @property
    def own_images(self) -> bool:
        """Whether the user has given training images."""
        return bool(self.train or self.patches)

    @property
    def work(self) -> Path:
        """Folder of all studies' models."""
        return self.results / "studies"

    @property
    def images(self) -> Path:
        """Folder of the image sets' hashes and of links to images."""
        return self.work / "images"

    @property
    def measured(self) -> Path:
        """Folder of all rows that studies have measured."""
        return self.work / "measured"


@dataclass(frozen=True)
class Data:
    """The images of a study: the training set, the sets that are coded, and the overrides that name the former."""

    train: ImageSet | None
    measured: tuple[ImageSet, ...]
    overrides: tuple[str, ...]


def training_set(options: Options) -> ImageSet:
    """Return the images to train on.

    Raises:
        ConfigError: both folders of images and patches are given.
        DataError: no finished set of patches.
    """
    if options.patches is not None:
        if options.train:
            raise ConfigError("--patches", str(options.patches), "without --train: its manifest tells the images")
        open_patches(options.patches)
        listed = read_listed(options.patches / MANIFEST)
        if listed is None:
            raise ConfigError("--patches", str(options.patches), "the --output of python -m src.prepare")
        return listed
    return read_set(options.train or ["sample:train"], options.images)


def validation_set(options: Options) -> ImageSet:
    """Return the images to validate on.

    Raises:
        ConfigError: the user has given training images, but none of these.
    """
    if options.own_images and not options.val:
        raise ConfigError("--val", None, "a folder of validation images, with --train or --patches")
    return read_set(options.val or ["sample:val"], options.images)


def test_sets(options: Options) -> list[ImageSet]:
    """Return the sets of test images.

    Raises:
        ConfigError: the user has given training images, but none of these.
    """
    if options.own_images and not options.test:
        raise ConfigError("--test", None, "folders of test images, with --train or --patches")
    return [read_set([folder], options.images) for folder in options.test or ["sample:test"]]


def study_data(scale: Scale, options: Options) -> Data:
    """Read and check the images of a study.

    Raises:
        ConfigError: folders are missing on the command line.
        DataError: a folder without images, or a test image that was trained on.
    """
    train = training_set(options) if scale.trains else None
    val = validation_set(options) if scale.trains or "val" in scale.measure else None
    measured = [val] if val and "val" in scale.measure else []
    measured += test_sets(options) if "test" in scale.measure else []
    check_disjoint(measured, train, options.manifests)
    overrides: tuple[str, ...] = ("data=sample",)
    if train and val and options.own_images:
        kind = "folder" if options.patches is None else "prepared"
        place = (
            link_folder(train, options.images) if options.patches is None else _link(options.patches, options.images)
        )
        folders = {"train_dir": place, "val_dir": link_folder(val, options.images)}
        overrides = (f"data={kind}", *(override(f"data.{key}", folder) for key, folder in folders.items()))
    return Data(train, tuple(measured), overrides)


def _link(patches: Path, folder: Path) -> Path:
    """Return a link named by the contents of a folder of patches, so that run names do not depend on its place."""
    digest = hashlib.sha256((patches / LIST).read_bytes()).hexdigest()[:8]
    link = folder / f"patches_{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    if link.resolve() != patches.resolve():
        link.unlink(missing_ok=True)
        link.symlink_to(patches.resolve())
    return link


def study_trainings(scale: Scale, data: Data, options: Options) -> list[Training]:
    """Return the trainings of a study; see :func:`jointiq.studies.training.trainings`."""
    common = [override("paths.results", options.work), "test=false", *data.overrides, *options.overrides]
    return trainings(scale, common)


def run_study(study: Study, scale_name: str, options: Options) -> int:
    """Run a study at a scale and write its results; return 1 if a training failed (its numbers are missing), else 0.

    Raises:
        UserError: a value, image or checkpoint that cannot be used, or no training could be finished.
        KeyboardInterrupt: stopped; the same command goes on.
    """
    scale = study.at(scale_name)
    check_analyses(scale)
    published = published_curves(options.published)
    device = str(pick_device(options.device))
    data = study_data(scale, options)
    jobs = study_trainings(scale, data, options)
    work = options.work / study.name / scale.name
    finished = train(jobs, options.jobs, work / "jobs")
    if jobs and not finished:
        raise UserError(f"{study.name}: none of its {len(jobs)} trainings could be finished; their messages are above")

    coded = [one for one in finished if one.run.measure]
    # With decode: one, runs that start from another have its pictures; of their files one in each set is decoded.
    sizes = [one for one in coded if scale.decode == "one" and one.run.init_from]
    decoded = [one for one in coded if one not in sizes]
    measured = measure_trained(decoded, sizes, data.measured, device, options.measured, options.jobs)

    output = options.output
    if output is None:
        is_temporary = options.overrides or scale.name == DEMO
        output = work / "results" if is_temporary else study.folder / "results" / scale.name
    output.mkdir(parents=True, exist_ok=True)
    context = Context(
        study=study,
        scale=scale,
        trained=finished,
        sets=data.measured,
        output=output,
        work=work,
        device=device,
        measured=measured,
        anchors=lambda images, families: anchor_curves(images, families, options),
        published=published,
        jobs=options.jobs,
    )
    findings = Findings()
    for name, settings in scale.analyses:
        findings.add(get_analysis(name)(context, settings))
    problems = [str(one) for one in jobs if one not in finished]
    where = device_text(device)
    trained_on = _trained_on(data, finished)
    files = write_results(study, scale, findings, finished, trained_on, where, output, problems)
    if output == study.folder / "results" / scale.name:
        files += [path for path in [write_readme(study)] if path]
    main_table(study, scale.name, main_rows(scale, findings, trained_on, where)).print()
    print("written:", *files, *(path for path, _ in findings.figures), sep="\n  ")
    for line in problems:
        print(f"not finished: {line}")
    return 1 if problems else 0


def _trained_on(data: Data, finished: Sequence[Training]) -> str:
    """Return the training images as text: those of the study, then those of its shipped models."""
    shipped = [image_set for one in finished for image_set in one.trained_on]
    return ", ".join(dict.fromkeys([*([str(data.train)] if data.train else []), *shipped])) or NOTHING


def anchor_curves(images: ImageSet, families: Sequence[str], options: Options) -> list[RDCurve]:
    """Return the RD curves of real codecs on a set, measured once; codecs that are not installed are left out."""
    found = find_codecs(families, dict.fromkeys(PROGRAMS))
    for family, reason in found.absent.items():
        print(f"absent: {family}: {reason}")
    folder = options.work / "anchors" / images.digest
    named = named_images(images.paths)
    with progress_bar() as progress:
        bar = progress.add_task(
            "real codecs", total=sum(len(codec.settings) for codec in found.codecs) * len(named), note=""
        )
        run_anchors(
            [(codec, codec.settings) for codec in found.codecs],
            named,
            folder,
            options.jobs,
            lambda done: progress.update(bar, advance=1, note=done.maker.name),
            cache=options.measured,
        )
    files = [folder / f"{codec.name}.json" for codec in found.codecs]
    return [read_rd(file) for file in files if file.is_file()]


def published_curves(given: Sequence[str]) -> Mapping[str, Mapping[str, RDCurve]]:
    """Return RD curves of others by set and file name, from ``SET=DIR``.

    Raises:
        ConfigError: not of that form.
        DataError: no such folder, or a damaged file.
    """
    found: dict[str, dict[str, RDCurve]] = {}
    for text in given:
        name, folder = name_and_folder(text)
        if not name or not folder:
            raise ConfigError("--published", text, "SET=DIR, SET the name of a test set")
        curves = found.setdefault(name, {})
        curves.update({file.path.stem: file.curve for file in find_curves([Path(folder)])})
    return found
