"""The people in photos of one's own, drawn and written down: ``python -m yolopose.display.photo --photo me.jpg``; what
``make predict`` calls, and notebook 04 in its last cell.

Of each photo ``<results>/photos/<experiment>-seed<k>/`` gets ``<name>.jpg``, the drawing, and ``<name>.json``: the
``people`` in COCO's result format, in px of the photo upright, and what made them. A file there that this photo did not
make stays, and the name gets a number.
"""

import argparse
import os
import sys
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from yolopose.data.photo import photos_at, read_photo
from yolopose.display.people import LEGEND, draw_people, grid
from yolopose.evaluation.evaluate import Predictor, load_trained
from yolopose.evaluation.predictions import as_coco_results
from yolopose.models.checkpoints import load_weights
from yolopose.study.config import load_experiments, load_profiles, load_study, load_variants
from yolopose.study.paper import COMMITTED, REPO
from yolopose.utils.cli import add_target_arguments, exit_status
from yolopose.utils.device import select_device
from yolopose.utils.errors import StudyError
from yolopose.utils.files import file_sha256, read_object, replaced, write_json

CONFIDENCE, NMS_IOU = 0.25, 0.65
LONGER_IN = 8.0  # of a drawing; its lines and letters grow with the photo's pixels
DPI = (100, 400)  # least and most
FOLDER = "photos"  # in a results folder
TIMES = {"smoke": "2 to 5 minutes, in which it learns next to nothing", "mini": "about 50 minutes on two cores",
         "gpu": "an hour on one GPU"}  # README.md


def find_people(predictor: Predictor, image: NDArray[np.uint8], confidence: float = CONFIDENCE,
                image_id: int = 1) -> tuple[Figure, list[dict[str, Any]]]:
    """The people that a model finds in one (H, W, 3) RGB image of any size: drawn, and as COCO results in its px, best
    first."""
    poses = predictor.predict(image, confidence, NMS_IOU)
    height, width = image.shape[:2]
    # At least so large that the words have room and a strip of pixels can be seen.
    height_in, cell_in = (max(LONGER_IN * side / max(height, width), least)
                          for side, least in ((height, 0.5), (width, 3.5)))
    figure, (axis,) = grid(1, 1, cell_in, f"{_people(len(poses))} with a score of at least {confidence:g}, found at "
                           f"{predictor.input_size} px", LEGEND.replace("labelled but hidden", "unsure"),
                           ratio=height_in / cell_in)
    draw_people(axis, image, poses.boxes_xyxy.numpy(), poses.keypoints.numpy(), predictor.schema, visible=0.5,
                least=0.05, scores=poses.scores.tolist(), pen=1.6)
    return figure, as_coco_results(poses, image_id, predictor.schema.category_id)


def _people(number: int) -> str:
    return f"{number or 'no'} {'person' if number == 1 else 'people'}"


def trained_runs(results_dir: Path) -> list[Path]:
    """Folders of the pose models in a results folder that can be used, s6 first, then in the order of the study."""
    experiments, variants = load_experiments(), load_variants()
    order = ["s6", *(name for name in experiments if variants[experiments[name].variant].head != "person")]
    found = [path.parent for path in results_dir.glob("*/seed*/weights.pt") if path.parent.parent.name in order]
    return sorted(found, key=lambda run: (order.index(run.parent.name), len(run.name), run.name))


def choose_run(results_dir: Path, run: str = "") -> Path:
    """The folder of the ``run`` asked for (a path, or one within the results folder), else of the first that is trained
    there; a StudyError says what to do where there is none."""
    if run:
        given = Path(run).expanduser()
        if found := [path for path in (given, results_dir / run) if (path / "weights.pt").is_file()]:
            return found[0]
        raise StudyError(f"RUN={run}: holds no weights.pt (weights are not committed); give the folder of a run that "
                         f"was trained here, such as {results_dir / 's6' / 'seed0'}")
    if found := trained_runs(results_dir):
        return found[0]
    profile = str(read_object(results_dir / "study.json").get("profile") or results_dir.name.split("-")[0])
    where = f"PROFILE={profile}" if profile in load_profiles() else f"RESULTS={results_dir}"
    time = f" ({TIMES[profile]})" if profile in TIMES else ""
    others = [path for folder in sorted((REPO / "results").glob("*")) for path in trained_runs(folder)]
    raise StudyError("\n".join([
        f"{results_dir}: no model is trained there yet; ways to one:",
        f"  make reproduce {where}{time}",
        "  make checkpoints NAMES=s6_960, then make predict RUN=data/checkpoints/s6_960 PHOTO=… (the authors' weights, "
        "which know photographs)",
        *(f"  make predict RUN={_shown(path)} PHOTO=… (trained already)" for path in others[:3])]))


def output_folder(results_dir: Path, run_dir: Path) -> Path:
    """Where the drawings of a run's people go: its own results, never those that are committed."""
    results = run_dir.resolve().parents[1] if (run_dir / "run.json").is_file() else results_dir
    if any(results.resolve().is_relative_to(REPO / "results" / name) for name in COMMITTED):
        results = REPO / "results" / results.name
    return _shown(results / FOLDER / "-".join(run_dir.resolve().parts[-2:]))


def _shown(path: Path) -> Path:
    """Relative to the working directory where it lies there."""
    path, here = path.resolve(), Path.cwd().resolve()
    return path.relative_to(here) if path.is_relative_to(here) else path


def free_place(folder: Path, photo: str, stem: str) -> tuple[Path, Path]:
    """The drawing and the record of a photo: those that it has already, else new ones that no file is lost for."""
    for number in count(1):
        drawing, record = (folder / f"{stem}{f'-{number}' if number > 1 else ''}.{end}" for end in ("jpg", "json"))
        taken = os.path.lexists(drawing) or os.path.lexists(record)
        if not taken or read_object(record).get("photo") == photo:
            return drawing, record
    raise AssertionError  # count has no end


def learned_from(about: dict[str, Any], run_dir: Path) -> str:
    """What a model was trained on, in words; empty where it knows photographs."""
    record, profiles = read_object(run_dir / "run.json"), load_profiles()
    config, made = record.get("config") or {}, about.get("about") or {}
    profile = profiles.get(str(made.get("profile", "")))
    source = (config.get("data") or {}).get("source") or (profile.data.source if profile else "")
    seen = (record.get("train") or {}).get("images_seen")
    return source and source != "folder" and f"drawn people at {about['input_size']} px" + (
        f" ({seen:,} images)" if isinstance(seen, int) else "")


def predict(results_dir: Path, photo: str, run: str = "", device: str = "auto", confidence: float = CONFIDENCE) -> None:
    """Draw and write down the people of a photo or of a folder of photos, and print what was found; photos that cannot
    be read are named by a StudyError after the others."""
    if not photo:
        raise StudyError("PHOTO is missing: give a photo or a folder of photos, make predict PHOTO=me.jpg")
    if not 0 <= confidence <= 1:
        raise StudyError(f"--confidence {confidence}: must be between 0 and 1")
    photos, run_dir = photos_at(Path(photo).expanduser()), choose_run(results_dir, run)
    model, about = (load_trained if (run_dir / "run.json").is_file() else _load_plain)(run_dir)
    if about["num_keypoints"] == 0:
        raise StudyError(f"RUN={run_dir}: is a person detector, without keypoints; give a pose model, such as s6")
    predictor, folder = Predictor(model, about, select_device(device)), output_folder(results_dir, run_dir)
    made = {"run": str(_shown(run_dir)), "weights_sha256": file_sha256(run_dir / "weights.pt"),
            "input_size": predictor.input_size, "confidence": confidence, "nms_iou": NMS_IOU,
            "keypoint_names": list(predictor.schema.names), "skeleton": predictor.schema.skeleton}
    print(f"model: {made['run']}; results: {folder}", flush=True)
    wrong, empty, drawn = [], 0, learned_from(about, run_dir)
    for number, path in enumerate(photos, 1):
        try:
            image = read_photo(path)
        except StudyError as error:
            wrong.append(str(error))
            continue
        drawing, rows = find_people(predictor, image, confidence, number)
        name = os.fsencode(path.resolve()).decode(errors="replace")  # a name may be no text
        picture, record = free_place(folder, name, Path(name).stem)
        with replaced(picture) as file:
            drawing.savefig(file, format="jpeg", dpi=float(np.clip(max(image.shape[:2]) / LONGER_IN, *DPI)),
                            pil_kwargs={"quality": 90})
        write_json(record, {"photo": name, "width": image.shape[1], "height": image.shape[0], "people": rows, **made})
        scores = " ".join(f"{row['score']:.2f}" for row in rows[:10]) + " …"[:2 * (len(rows) > 10)]
        print(f"{Path(name).name}: {_people(len(rows))}{f' ({scores})' if rows else ''} -> {picture.name}, "
              f"{record.name}", flush=True)
        empty += not rows
    if empty:
        print(f"Nobody was found in {empty} of {len(photos)}: no score reaches {confidence:g}.")
    if drawn:
        print(f"This model learned from {drawn} alone: what it finds in photographs, or not, means little. One that "
              "was trained on COCO knows them (make checkpoints, or PROFILE=paper).")
    if wrong:
        raise StudyError("\n".join([f"{len(wrong)} of {len(photos)} photos could not be read:", *wrong]
                                   if len(photos) > 1 else wrong))


def _load_plain(folder: Path) -> tuple[Any, dict[str, Any]]:
    return load_weights(folder / "weights.pt")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m yolopose.display.photo", description=__doc__.split(":")[0])
    parser.add_argument("--photo", default="", help="a photo, or a folder of photos")
    parser.add_argument("--run", default="", help="folder of a trained run (default: the first of the results folder)")
    parser.add_argument("--confidence", type=float, default=CONFIDENCE, help="smallest score (default: %(default)s)")
    add_target_arguments(parser)
    o = parser.parse_args(arguments)

    def action() -> None:
        results = Path(o.results).expanduser() if o.results else load_study(o.profile or "mini", o.data).results_dir
        predict(results, o.photo, o.run, o.device, o.confidence)

    return exit_status(action)


if __name__ == "__main__":
    sys.exit(main())
