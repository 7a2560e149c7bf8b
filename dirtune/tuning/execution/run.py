"""Run of a sweep: lock its folder, reconcile it with the study, run what is missing, summarize."""

from dataclasses import replace
from functools import partial

from dirtune.data import blocks, session
from dirtune.data.contract import read_contract
from dirtune.results.records import compaction
from dirtune.training import provenance, train
from dirtune.tuning.execution import plugin_check, scheduler, storage_failure, tune_run, worker
from dirtune.tuning.execution.concurrency import Concurrency
from dirtune.tuning.execution.driver import Driver
from dirtune.tuning.folder import floors, reconcile, stop_request
from dirtune.tuning.interface import RunOptions, SweepSummary, View
from dirtune.tuning.plan import autoscaling
from dirtune.tuning.plan.capacity import list_cluster_nodes, resolve_cpus
from dirtune.tuning.plan.plan import count_trials, make_plan
from dirtune.tuning.search.queue import TrialQueue
from dirtune.tuning.search.warm_start import find_first_settings


def run_missing_trials(folder: reconcile.StudyFolder, options: RunOptions, view: View) -> SweepSummary:
    """Run the trials of a study that are not recorded, and those that failed with an error class to retry.

    Raises:
        InputError: the study does not fit the cluster, another driver runs it, or its folder cannot be written any more.
        KeyboardInterrupt: on a second Ctrl-C.
    """
    view.report_activity(f"{folder.study.name}: starting Ray")
    with session.ray_session():
        # Before anything is written: a study that does not fit the cluster leaves nothing behind.
        nodes = list_cluster_nodes()
        folder = replace(
            folder, study=resolve_cpus(folder.study, [*nodes, *autoscaling.list_nodes(options.node_types)])
        )
        study, manifest, storage = folder.study, folder.manifest, folder.storage
        record_floors = partial(floors.record_missing_floors, folder, options.data, view.report_activity)
        plan = make_plan(folder, folder.find_reuse(), nodes, options.node_types)
        plugin_check.check_nodes(study.plugins)
        # A stop request is removed before the folder is locked: it was meant for an earlier sweep.
        with (
            stop_request.watch_for_stop(storage) as stop,
            folder.lock() as lock,
            folder.open_journal() as journal,
        ):
            # Again: another driver may have recorded trials between the plan and the lock.
            orphaned = folder.find_reuse().orphaned
            recorded = folder.reconcile(journal, options.retry)
            # Counted again: trials that are retried are missing now.
            plan = replace(plan, trials=count_trials(folder), recorded_trials=len(recorded))
            queue = TrialQueue(
                folder,
                journal,
                recorded,
                first_settings=find_first_settings(study, options.results),
                code_version=provenance.get_code_version(),
            )
            driver = Driver(queue, folder, view, stop, plan.concurrency, lock.check)
            if manifest.label.dense is None:
                # With per-pixel labels they take longer than workers do to start, and wait until no trial needs the CPUs.
                driver.while_starting = record_floors
            view.begin(plan, recorded)
            if not queue.is_empty:
                view.report_activity("reading the data and starting workers")
                settings = worker.WorkerSettings(
                    study=driver.storage,
                    manifest=manifest,
                    vocabulary=train.read_vocabulary(manifest, options.data),
                    cpus=study.resources.cores,
                    gpus=study.resources.gpus,
                    workers=study.resources.workers,
                    checkpoint_seconds=study.resources.checkpoint_seconds,
                    scheduled_role=scheduler.get_scheduled_role(study),
                    representations=study.representations,
                    keep_models=study.keep_models,
                    contract=None if study.keep_models == "none" else read_contract(options.data, manifest),
                )
                concurrency = Concurrency(study, options.node_types, plan.concurrency)
                data = blocks.materialize(options.data, manifest, worker=settings.resources)
                with compaction.keep_compacted(storage):
                    tune_run.run_with_tune(driver, settings, data, concurrency)
                storage_failure.raise_storage_failure(storage, driver.storage_failure)
                compaction.compact_if_outdated(storage)
            # Those that could not be recorded before; not after a stop request, which must end soon.
            problem = "" if stop.reason else record_floors()
            summary = driver.summarize(plan, reused=len(recorded), orphaned=len(orphaned))
            return replace(summary, floors_problem=problem)
