"""Small stand-ins for the notebooks: they write the files that a stage must write, with the standard library alone."""

import json
import sys
from pathlib import Path

PARAMETERS = 'PROFILE = "smoke"\nDATA = ""\nRESULTS = ""\nSEEDS = ""\nDEVICE = "auto"\nABLATIONS = False'
STORED = 'PROFILE = "smoke"\nRESULTS = ""'
HEAD = """
import json
from pathlib import Path
root = Path(RESULTS)
def put(name, text="x"):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
"""
STUDY = """
from yolopose.study.config import load_study
study = load_study(PROFILE, DATA, RESULTS, SEEDS, DEVICE, ABLATIONS)
root = study.results_dir
"""
CODE = {
    "01_data": STUDY + 'put("data.json", json.dumps({"fingerprint": "f00d"}))',
    "02_complexity": 'put("complexity.csv", "variant,input_size,params_m,gmacs,convention\\n")\n'
                     'put("architecture.json", "{}")\nput("loss_shape.json", "{}")',
    "03_train": STUDY + """
for run in study.runs():
    folder = f"{run.experiment.name}/seed{run.seed}"
    put(folder + "/curve.csv", "epoch,images\\n")
    put(folder + "/run.json", json.dumps({
        "experiment": run.experiment.name, "profile": PROFILE, "seed": run.seed, "config": run.as_dict(),
        "config_hash": run.hash, "data_fingerprint": "f00d", "weights_sha256": "aa", "train": {"seconds": 65.0}}))
""",
    "04_evaluate": STUDY + """
for run in study.runs():
    folder = f"{run.experiment.name}/seed{run.seed}"
    put(folder + "/predictions.json.gz")
    put(folder + "/metrics.json", json.dumps({"val": {"AP": 0.25, "AP50": 0.5, "images": 2}}))
    put(folder + "/joints.json", "{}")
    put(folder + "/tta.json", "{}")
for name in ("ablations",) if ABLATIONS else ("scenes", "runtime"):
    put(name + ".json", "{}")
""",
    "05_export_quantize": 'put("export.json", "{}")\nput("quantization.json", "{}")',
    "06_tables": 'for n in range(1, 6):\n    for kind in ("csv", "md", "tex"):\n'
                 '        put(f"tables/table{n}.{kind}")\n'
                 'for kind in ("csv", "md"):\n    put(f"tables/tta_audit.{kind}")',
    "07_figures": 'for n in range(1, 7):\n    for kind in ("png", "svg"):\n        put(f"figures/figure{n}.{kind}")',
    "08_report": 'put("comparison.csv", "id,experiment,verdict\\na,s6,reproduced\\n")\n'
                 'put("claims.csv", "id,decided_by,verdict\\nc,run,not run\\n")\nput("report.html")',
}


def command_line(books: Path, *arguments: str) -> list[str]:
    """The command of another process that runs stages on the stand-ins in ``books``."""
    return [sys.executable, "-c", "import sys\nfrom pathlib import Path\nfrom yolopose.workflow import run, stages\n"
            f"stages.NOTEBOOKS = Path({str(books)!r})\nsys.exit(run.main({list(arguments)!r}))"]


def notebook(folder: Path, name: str, parameters: str, *code: str) -> Path:
    """Write a notebook of a parameters cell and code cells."""
    cells = [{"cell_type": "code", "id": f"c{i}", "metadata": {"tags": ["parameters"]} if i == 0 else {},
              "outputs": [], "execution_count": None, "source": source.splitlines(True)}
             for i, source in enumerate((parameters, *code))]
    about = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    path = folder / f"{name}.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}))
    return path
