"""Churn models: fit, evaluate, save, load, predict, train from the command line."""

from churn_mlops.lazy import lazy_exports

TYPE_CHECKING = False  # type checkers take it for true; importing typing would cost milliseconds

if TYPE_CHECKING:
    from .churn_model import ChurnModel as ChurnModel
    from .inference import ChurnPredictor as ChurnPredictor
    from .train import train_model as train_model
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__, {"ChurnModel": ".churn_model", "ChurnPredictor": ".inference", "train_model": ".train"}
    )
