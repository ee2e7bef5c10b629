"""``make reference``: the results of a profile in the form in which they are committed, under ``results/reference``.

Weights, exported models and the files for COCO's server stay behind, and predictions are packed.
"""

import argparse
import sys
from pathlib import Path

from yolopose.data.coco import CocoDataset
from yolopose.data.prepare import prepare_data
from yolopose.evaluation.archive import FILES, pack
from yolopose.study.config import ABLATIONS, Study, load_study
from yolopose.study.paper import REFERENCE_DIR
from yolopose.utils.cli import add_target_arguments, exit_status
from yolopose.utils.files import atomic_write, read_json

KINDS = {".json", ".csv", ".md", ".tex", ".png", ".svg", ".html", ".ipynb"}
LEFT = {"stages.json", "study.json", "progress.json", "not_reached.json"}  # bookkeeping of one machine
SAME_AS_MAIN = Path(ABLATIONS) / "notebooks" / "01_data.ipynb"  # the ablations' data set is the main study's


def publish(study: Study, dataset: CocoDataset, target: Path) -> list[Path]:
    """Copy a study's results to ``target``, over what stands there; returns what was written. StudyError: a run has no
    predictions. ValueError: packed predictions would not score the same."""
    source, val, written = study.results_dir, dataset.val, []
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        if path.suffix in KINDS and path.name not in LEFT and name != SAME_AS_MAIN:
            atomic_write(target / name, path.read_bytes())
            written.append(target / name)
    with_keypoints = [val.image_id(n) for n in val.with_keypoints()]
    for run in study.runs():
        if run.variant.head != "person":
            predictions = read_json(study.run_dir(run.experiment.name, run.seed) / FILES[0])
            written.append(target / run.experiment.name / f"seed{run.seed}" / FILES[1])
            pack(written[-1], predictions, val.annotations, val.image_ids(), with_keypoints, dataset.schema.sigmas)
    return written


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m yolopose.analysis.reference", description=__doc__.split("\n")[0])
    add_target_arguments(parser)
    o = parser.parse_args(arguments)

    def action() -> None:
        study = load_study(o.profile or "mini", o.data, o.results, o.seeds, o.device)
        target = REFERENCE_DIR / study.profile.name
        files = publish(study, prepare_data(study), target)
        print(f"{target}: {len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB")

    return exit_status(action)


if __name__ == "__main__":
    sys.exit(main())
