"""Trackers: the trials of a study in TensorBoard, MLflow or Weights & Biases.

Nothing here runs inside of a training. The results folder is read, and trials that a tracker does not have are written to it: by
`dirtune log` at any time, and during a sweep by a process of its own (`follower`), which a lost server may block without the
sweep noticing.

    target                            a tracker and its place, as `mlflow:http://host:5000`
    trial_log                         what is logged of a trial
    tracker                           the interface of a tracker
    mlflow, wandb, tensorboard        one file per tracker, the only one that imports its package
    logging                           open a tracker, and write what it lacks
    follower                          do so while a sweep runs
"""
