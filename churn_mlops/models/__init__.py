"""Churn models: fit, evaluate, save, load, predict, train from the command line."""

from churn_mlops.lazy import lazy_exports

TYPE_CHECKING = False  # type checkers take it for true; importing typing would cost milliseconds

if TYPE_CHECKING:
    from .churn_model import ChurnModel as ChurnModel
    from .compare import compare_models as compare_models
    from .inference import ChurnPredictor as ChurnPredictor
    from .training import train_model as train_model
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "ChurnModel": ".churn_model",
            "ChurnPredictor": ".inference",
            "compare_models": ".compare",
            "train_model": ".training",
        },
    )
