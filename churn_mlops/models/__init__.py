"""Churn models: fit, evaluate, save, load, predict, train from the command line."""

from churn_mlops.lazy import lazy_exports

TYPE_CHECKING = False  # type checkers take it for true; importing typing would cost milliseconds

if TYPE_CHECKING:
    from .churn_model import ChurnModel as ChurnModel
    from .inference import ChurnPredictor as ChurnPredictor
    from .report import evaluate_report as evaluate_report
    from .selection import compare_models as compare_models
    from .selection import tune as tune
    from .training_run import train_model as train_model
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "ChurnModel": ".churn_model",
            "ChurnPredictor": ".inference",
            "compare_models": ".selection",
            "evaluate_report": ".report",
            "train_model": ".training_run",
            "tune": ".selection",
        },
    )
