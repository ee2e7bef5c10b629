"""Constants of the paper that several parts of the study need."""

from pathlib import Path

CONVENTIONS = ("conv", "fused_bias", "fvcore_unfused")
PAPER_KEYPOINTS = 17
PAPER_SIZES = (1280, 960, 640, 576, 512, 448, 384)
PAPER_VARIANTS = ("yolov5s6_pose", "yolov5m6_pose", "yolov5l6_pose")
DECODER_LADDER = (*(f"yolov5s6_pose_dw{depth}" for depth in range(1, 6)), "yolov5s6_pose")  # by depth, 1 to 6
BASE_SIZE = 960
# The convention whose counts the paper's Table 1 prints: everything that fvcore counts on the fused model (convolutions
# and nearest-neighbour upsampling) plus one operation per element of each biased output.
MAIN_CONVENTION = "fused_bias"
# Images of the splits on which a COCO result may be compared with the paper's; another count is another data set.
COCO_IMAGES = {"val": (2346,), "val_all": (5000,), "test_dev": (20288,)}
REPO = Path(__file__).resolve().parents[2]
PAPER_DIR = REPO / "results" / "paper"  # the printed numbers, the claims and the list of released checkpoints
REFERENCE_DIR = REPO / "results" / "reference"
COMMITTED = ("paper", "reference", "bench")  # folders of results that the repository keeps
