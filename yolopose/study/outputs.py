"""What a study writes into its results folder: the one list, by which ``make clean`` deletes, and spares others."""

# Files and folders beside those of the experiments, <experiment>/seed<k>/.
OUTPUTS = (
    "stages.json", "study.json", "data.json", "complexity.csv", "architecture.json", "loss_shape.json", "export.json",
    "export", "quantization.json", "runtime.json", "scenes.json", "scenes", "ablations.json", "ablations",
    "tuning.json", "tuning", "released.csv", "released", "not_reached.json", "comparison.csv", "claims.csv",
    "report.html", "notebooks", "tables", "figures",
    "photos/*-seed[0-9]*")  # of predict; photos beside them may be the user's
RUN_FILES = ("run.json", "checkpoint.pt", "progress.json", "curve.csv", "metrics.json", "weights.pt")  # of <experiment>
