"""Plays the evaluation of a day later: the newest model is found to be worse than it seemed."""

import mlflow

(run,) = mlflow.search_runs(search_all_experiments=True, max_results=1, output_format="list")
mlflow.MlflowClient().log_metric(run.info.run_id, "val/accuracy", 0.81)
