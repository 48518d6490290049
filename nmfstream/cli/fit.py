"""``nmfstream fit``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nmfstream.cli import options as o
from nmfstream.cli.report import counted, finish, passes
from nmfstream.cli.settings import Command
from nmfstream.units import size_text

if TYPE_CHECKING:
    from nmfstream.config import FitConfig
    from nmfstream.run.events import Listener

_algorithm = o.grouped(
    click.option("-k", "--n-components", type=o.POSITIVE, metavar="N", help="Components (required without --from)."),
    click.option("--beta-loss", type=o.Beta(), metavar="NAME|NUMBER",
                 help="frobenius, kullback-leibler, itakura-saito or a number [default: frobenius]."),
    click.option("--solver", type=click.Choice(["auto", "mu", "hals"]), default="auto", show_default=True,
                 help="auto: fewest passes; mu: scikit-learn's algorithm."),
    click.option("--init", type=click.Choice(["random", "nndsvd", "nndsvda", "nndsvdar", "custom"]),
                 help="Where H starts [default: the solver's choice]."),
    click.option("--max-iter", type=o.POSITIVE, metavar="N", help="Most passes [default: 5; mu: 200; a stream: 1]."),
    click.option("--batch-size", type=o.POSITIVE, metavar="N",
                 help="Rows between two updates of H [default: 4096; mu: 1024]."),
    click.option("--tol", type=o.OrNone(o.WEIGHT), metavar="X|none", help="Stop below this [default: 1e-4]."),
    click.option("--max-no-improvement", type=o.OrNone(o.POSITIVE), metavar="N|none",
                 help="Passes (mu: batches) without improvement before stopping [default: 2; mu: 10]."),
    click.option("--alpha-w", "alpha_W", type=o.WEIGHT, metavar="X", help="Penalty on W [default: 0]."),
    click.option("--alpha-h", "alpha_H", type=o.WEIGHT, metavar="X",
                 help="Penalty on H [default: as --alpha-w]."),
    click.option("--l1-ratio", type=o.SHARE, metavar="SHARE", help="Share of L1 in the penalties [default: 0]."),
    click.option("--forget-factor", type=o.SHARE, metavar="SHARE",
                 help="Memory of earlier batches [default: mu: 0.7]."),
    click.option("--fresh-restarts/--no-fresh-restarts", default=None, help="mu: solve W anew in every batch."),
    click.option("--fresh-restarts-max-iter", type=o.POSITIVE, metavar="N", help="mu: steps of that [default: 30]."),
    click.option("--transform-max-iter", type=o.POSITIVE, metavar="N", help="mu: steps of the last solve for W."),
    click.option("--random-state", "--seed", type=o.Number(int, 0, 2**32 - 1), default=0, show_default=True,
                 metavar="N", help="Seed."),
    click.option("--sample-rows", type=o.COUNT, metavar="N",
                 help="Most rows that are fitted before the first pass; 0: none."),
    click.option("--n-init", type=o.POSITIVE, metavar="N", help="Starts that compete on them."),
    click.option("--holdout", type=o.Number(float, 0, 1, below=True), metavar="SHARE",
                 help="Share of the rows that is scored and never learned from."),
)  # fmt: skip

_files = o.grouped(
    click.option("-o", "--output", "model", type=o.ModelFile(), required=True, metavar="MODEL.h5", help="The model."),
    click.option("--w", type=o.Store(), metavar="OUT", help="Write W too."),
    click.option("--components", type=o.Store(), metavar="OUT", help="Write H alone too."),
    click.option("--h-init", type=o.Store(), metavar="DATA", help="H to start from."),
    click.option("--w-init", type=o.Store(), metavar="DATA", help="W to start from (mu)."),
    click.option("--from", "continue_from", type=o.Store(), metavar="MODEL", help="Go on learning from a model."),
    click.option("--dry-run", is_flag=True, help="Print the plan (batches, memory, bytes to read); compute nothing."),
)  # fmt: skip


@click.command(
    cls=Command,
    name="fit",
    example="nmfstream fit counts.h5/X -o topics.h5 -k 20 --beta-loss kullback-leibler --w W.npy",
)
@o.data_argument()
@_files
@_algorithm
@o.data_options
@o.resource_options
@o.saving_options
@o.metrics_option
@o.common_options
def fit(**given: Any) -> None:
    """Learn H (and W) from DATA: one or more STORE[/DATASET], or - for standard input."""
    from nmfstream.cli.progress import listener

    config = _config(given)
    with listener(given) as hear:
        report = _run(config, hear)
    finish(given, "fit", _values(report, given), _words(report, given))


def _run(config: FitConfig, hear: Listener) -> Any:
    from nmfstream.run.fit import fit as run

    return run(config, hear)


def _config(given: dict[str, Any]) -> FitConfig:
    from nmfstream.config import FitConfig
    from nmfstream.defaults import NAMES, inherited_from, make_parameters

    values = o.given_values(given, NAMES)
    if given["h_init"] is not None:
        values.setdefault("init", "custom")
    stream = tuple(given["data"]) == ("-",)
    return FitConfig(
        inputs=o.inputs(given),
        parameters=make_parameters(
            values, solver=given["solver"], stream=stream, inherited=inherited_from(given["continue_from"])
        ),
        resources=o.resources(given),
        saving=o.saving(given),
        **{n: given[n] for n in ("solver", "model", "w", "components", "h_init", "w_init", "continue_from", "dry_run")},
        metrics=given["metrics"],
    )


def _values(report: Any, given: dict[str, Any]) -> dict[str, Any]:
    plan = report.plan
    if report.model is None:
        return {"dry_run": True, "plan": plan}
    return {
        "dry_run": False,
        "model": given["model"],
        "w": given["w"],
        "n_components": report.model.n_components,
        "n_features": report.model.n_features,
        "rows": report.rows,
        "solver": report.model.parameters["solver"],
        "loss": report.model.loss,
        "n_iter": report.model.n_iter,
        "n_steps": report.model.n_steps,
        "passes": report.passes,
        "stop_reason": report.model.stop_reason,
        "seconds": report.seconds,
        "nothing_to_do": report.nothing_to_do,
        "clipped": report.clipped,
        "history": report.model.history,
        "plan": plan,
    }


def _words(report: Any, given: dict[str, Any]) -> str:
    from nmfstream.cli.meter import duration

    if report.model is None:
        return _plan_words(report.plan)
    model = report.model
    if report.nothing_to_do:
        return f"nothing to do: {given['model']} is finished ({model.stop_reason}); a larger --max-iter goes on"
    clipped = f"; {counted(report.clipped, 'negative value')} clipped" if report.clipped else ""
    return (
        f"{counted(model.n_components, 'component')} of {model.n_features} features from {counted(report.rows, 'row')} "
        f"in {passes(report.passes)} and {duration(report.seconds)}; loss {model.loss:.6g} a row; "
        f"{model.stop_reason or 'done'}{clipped}; wrote {given['model']}"
    )


def _plan_words(plan: Any) -> str:
    parts = (
        f"{plan.n_samples} x {plan.n_features} ({plan.dtype})",
        f"solver {plan.solver}",
        f"{plan.batch_rows} rows a batch in blocks of {plan.block_rows}",
        "all rows kept" if plan.sample_rows == plan.n_samples else f"sample of {plan.sample_rows} rows",
        counted(plan.threads, "thread"),
        f"{size_text(plan.stored_bytes)} a pass",
        f"at most {passes(plan.max_passes)}",
        f"memory {plan.memory.peak >> 20} MiB",
    )
    return f"plan: {', '.join(parts)}; nothing was computed"
