"""The evaluation page of a model, and panels to try it out."""

from churn_mlops.lazy import lazy_exports

TYPE_CHECKING = False  # type checkers take it for true; importing typing would cost milliseconds

if TYPE_CHECKING:
    from .panels import threshold_slider as threshold_slider
    from .panels import what_if as what_if
    from .report import evaluate_report as evaluate_report
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__, {"evaluate_report": ".report", "threshold_slider": ".panels", "what_if": ".panels"}
    )
