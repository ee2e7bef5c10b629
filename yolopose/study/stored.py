"""What the stored results hold, as far as tables, figures, claims and ``status`` read it. A file that was damaged or
edited is a StudyError with file, key and remedy; what no reader asks for may be anything.
"""

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_csv, read_json
from yolopose.utils.typed import Above0, AtLeast0, Count, Matches, Mismatch, Name, Positive, Range, Share, held, hints

Score = Share | Literal[-1]  # −1: undefined, as COCO's evaluator has it
Change = Annotated[float, Range(-1, 1)]
Number = Annotated[float, Range(-1e9, 1e9)]
Amount = Annotated[float, Range(0, 1e9)]
Ends = Annotated[list[float], Range(2, 2)]
METRICS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")


class _Ordered:
    """Of an interval: its ends in order."""

    def check(self, value: dict[str, float], key: str) -> None:
        if value["low"] > value["high"]:
            raise Mismatch(key, "low must not lie above high")


def _some(**kinds: Any) -> Any:
    """A mapping in which each of these keys, where it is there, is of its kind."""
    return TypedDict("Some", kinds, total=False)


def _all(**kinds: Any) -> Any:
    """A mapping in which each of these keys is there, of its kind."""
    return TypedDict("All", kinds)


Gap = Annotated[_all(difference=Change, low=Change, high=Change), _Ordered()]
Slope = Annotated[_all(value=Number, low=Number, high=Number), _Ordered()]
Split = _some(images=Count, status=str, reason=str, **dict.fromkeys(METRICS, Score))
Machine = _some(cpu=str | None, cores=Count, memory_gib=Amount, accelerator=str | None, system=str)
Spent = _some(seconds=Amount, images_seen=Count, peak_memory_gib=Amount, device=str, hardware=list[str])
Config = _some(input_size=Positive, width_factor=Annotated[float, Range(above=0, high=10)], comparable=bool,
               experiment=_some(input_size=Positive), data=dict[str, Any], augment=dict[str, Any],
               train=_some(gains=dict[str, Any]), evaluate=dict[str, Any])
Run = _some(profile=Name, variant=str, comparable=bool, dataset=str, config=Config, config_hash=str | None,
            data_fingerprint=str | None, weights_sha256=str, packages=dict[str, str] | None, train=Spent | None,
            git=_some(commit=str | None, dirty=bool | None) | None, hardware=Machine | None,
            evaluate=Spent | None)
Joint = _all(visible=Count, error_mean=AtLeast0 | None, far_outside=Share | None)
Pair = _all(seeds=list[Count], **dict.fromkeys(("pose", "box"), NotRequired[dict[str, Gap]]))
Export = _some(other_domains=Count, parity=_some(other_differences=Count,
                                                 largest_difference=_some(keypoints_px=Amount)))
Data = _some(name=str, fingerprint=str, keypoints=_some(names=list[str]),
             baseline=_all(AP=Score, AP50=Score) | None, statistics=dict[str, Any] | None,
             coco_statistics=dict[str, Any] | None, left_out=dict[str, str],
             **dict.fromkeys(("train", "val", "test_dev"), dict[str, Any] | None))
Shares = {"share_layers_16bit": Share, "share_gmacs_16bit": Share}
Quantization = _some(
    status=str, reason=str, profile=str, seeds=list[Count], changes=dict[str, Any],
    models=list[_all(experiment=str, model=str, AP=Score)],
    curve=Annotated[list[_all(experiment=str, fraction=Share, AP=Score, **Shares)], Range(1)])
Cost = _all(params_m=Amount, gmacs=Amount, total_ms=_all(median=Amount))
Free = _all(person=Cost, pose=Cost, ratio=_all(params=Amount | Slope, gmacs=Amount | Slope,
                                                      total=Amount | Slope))
Threshold = _all(confidence=Share, after=_all(slope_ms=Slope), total=_all(slope_ms=Slope))
Times = {f"{step}_{name}_ms": Amount for step in ("nms", "frame") for name in ("evaluation", "use")}
Constant = _some(
    network=_all(slope_ms=Slope, median_ms=Annotated[float, Range(above=0, high=1e9)]),
    thresholds=_all(evaluation=Threshold, use=Threshold), canvas_px=Positive, width_factor=Above0,
    top_down=_all(slope_ms=Amount),
    points=Annotated[list[_all(persons=Count, network_ms=Amount, decode_ms=Amount, **Times)], Range(1)])
Runtime = _all(machine=_all(device=str, threads=Positive, hardware=Machine),
               almost_free=dict[str, Free | Number | str | None], constant=Constant)
Curves = ("l1", "oks_annealed", "paper_eq", "official")
Gradient = Annotated[list[Amount], Range(2)]
Shape = _all(person_px=Above0, widest=Above0, distance_px=Gradient, joints=dict[str, _all(
    sk_px=Above0, **dict.fromkeys(Curves, _all(zero_at_px=_all(float32=Amount | None))))],
    boxes=_all(**dict.fromkeys(("ciou", "iou"), _all(zero_at_px=Amount | None))),
    curves=dict[str, dict[str, Gradient]])
Map = _all(shape=list[Positive], gmacs=Amount)
Module = _all(number=Count, inputs=list[int], part=Literal["backbone", "up", "down"], stride=Positive,
              kind=Literal["focus", "spp", "upsample", "concat", "c3", "conv", "conv_focus"], shape=list[Positive],
              gmacs=Amount)
Branch = _all(shape=list[Positive], gmacs=Amount, convolutions=Count)
Parts = dict.fromkeys(("backbone", "up", "down", "box", "keypoints"), _all(gmacs=Amount))
Architecture = _all(
    layers=Annotated[list[Module], Range(1)], parts=_all(**Parts), gmacs=Above0, params_m=Amount,
    heads=Annotated[list[_all(level=str, stride=Positive, input=Count, box=Branch | None,
                              keypoints=Branch | None)], Range(1)],
    input_size=Positive, width_factor=Above0, num_keypoints=Count, variant=Name, convention=str)
Person = _all(bbox=Annotated[list[Number], Range(4, 4)], keypoints=Annotated[list[Number], Range(0, step=3)])
Joined = Annotated[list[Number], Range(6, 6)]
Picture = Annotated[str, Matches(r"scenes/\w[\w.-]*", "a file of scenes/")]
Shown = {"image_id": int, "picture": Picture, "width": Positive, "height": Positive, "ours": list[Person]}
Rate = _all(joints=Count, rate=Share | None, rate_95=Ends | None)
Found = _all(joints=Count, found=Count, found_rate=Share | None, found_rate_95=Ends | None)
Grouping = _all(**dict.fromkeys(("by_overlap", "by_people"), Annotated[list[Rate], Range(4, 4)]))
Scenes = _all(
    experiment=str, dataset=str, kept=Share,
    schema=_all(names=list[str], skeleton=list[Annotated[list[Count], Range(2, 2)]]),
    crowd=_all(scenes=list[_all(people=Count, grouped=NotRequired[list[Annotated[list[Number], Range(6, 6)]]],
                                **dict.fromkeys(("joints", "swapped", "lost"), NotRequired[Count]), **Shown)]),
    outside=_all(scenes=list[_all(outside=list[Annotated[list[Number], Range(7, 7)]], **Shown)]),
    box=_all(inside=Found, outside=Found, outside_confined=Found,
             by_distance=list[_all(**{"from": AtLeast0, "to": AtLeast0 | None}, joints=Count, found_rate=Share | None,
                                   found_rate_95=Ends | None)]),
    grouping=NotRequired[_all(**dict.fromkeys(("truth_grouped", "grouped_taken", "ours_taken", "ours_mixed"),
                                              Grouping)) | None])

AGAIN = "restore it, or delete it and repeat make {}, which writes it"
DROPPED = "restore it, or delete it: it is a record of what was run and no result"
# By the name of a file: its kind, and the remedy.
JSON: dict[str, tuple[Any, str]] = {
    "run.json": (Run, "restore it, or delete the folder of this run and repeat make reproduce"),
    "metrics.json": (dict[str, Split], AGAIN.format("evaluate")),
    "quantized.json": (dict[str, Split], AGAIN.format("export")),
    "joints.json": (_all(joints=dict[str, Joint]), AGAIN.format("evaluate")),
    "tta.json": (_some(gains=dict[str, dict[str, Gap]], reason=str), AGAIN.format("evaluate")),
    "data.json": (Data, AGAIN.format("data")),
    "architecture.json": (Architecture, AGAIN.format("complexity")),
    "loss_shape.json": (Shape, AGAIN.format("complexity")),
    "scenes.json": (Scenes, AGAIN.format("evaluate")),
    "runtime.json": (Runtime, AGAIN.format("evaluate")),
    "ablations.json": (_some(pairs=dict[str, dict[str, Pair]], far_outside=dict[str, dict[str, Share | None]]),
                       AGAIN.format("ablations")),
    "export.json": (_all(models=list[Export]), AGAIN.format("export")),
    "quantization.json": (Quantization, AGAIN.format("export")),
    "tuning.json": (_some(**dict.fromkeys(("best", "official_gain"), dict[str, _all(AP=Score)])), AGAIN.format("tune")),
    "study.json": (_some(profile=Name), DROPPED),
    "stages.json": (dict[str, _some(fingerprint=dict[str, str], seconds=Amount)], DROPPED),
    "progress.json": (_some(epoch=Count, epochs=Count, seconds_left=Amount | None), DROPPED),
    "not_reached.json": (dict[str, str], DROPPED)}
Percent = Annotated[float, Range(0, 100)]
Cells = dict.fromkeys(("loss_box", "loss_obj", "loss_cls", "loss_kpt", "loss_kpt_conf", "loss", "lr"), Number | None)
CSV: dict[str, tuple[Any, str]] = {
    "curve.csv": (_some(images=Amount, **Cells, **dict.fromkeys(("val_AP", "val_AP50", "val_box_AP50"), Score | None)),
                  "restore it, or delete the folder of this run and repeat make reproduce"),
    "complexity.csv": (_all(
        variant=str, convention=str, input_size=Annotated[float, Range(1, 1e6)],
        width_factor=NotRequired[Above0 | None],
        **dict.fromkeys(("params_m", "gmacs"), Annotated[float, Range(1e-9, 1e6)])), AGAIN.format("complexity")),
    "released.csv": (_all(**dict.fromkeys(("name", "note", "group", "input_size", "AP_readme"), str),
                          **dict.fromkeys(("AP", "AP50", "AP_path"), Percent | None)), AGAIN.format("evaluate")),
    "claims.csv": (_all(decided_by=str, verdict=str), AGAIN.format("report")),
    "comparison.csv": (_all(experiment=str, verdict=str), AGAIN.format("report"))}


def read_stored(path: Path) -> Any:
    """The value of a JSON file of results; of a name that :data:`JSON` does not have, whatever it is."""
    kind, remedy = JSON.get(path.name, (Any, ""))
    return held(kind, read_json(path), path, remedy)


def read_record(path: Path) -> dict[str, Any]:
    """The value of a record of what is under way, such as ``progress.json``; empty where it is missing or wrong."""
    with suppress(StudyError):
        return read_stored(path)
    return {}


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of one of the files of :data:`CSV`, as text; their numbers are those of which they are written."""
    kind, remedy = CSV[path.name]
    kinds, rows = hints(kind), read_csv(path)
    for number, row in enumerate(rows, 2):
        cells = {name: text if kinds.get(name, str) is str else _cell(text)
                 for name, text in row.items()}
        held(kind, cells, path, remedy, f"line {number}")
    return rows


def _cell(text: str) -> float | str | None:
    try:
        return float(text) if text else None
    except ValueError:
        return text
