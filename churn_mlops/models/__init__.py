"""Churn models: fit, compare, tune, save, load, predict, train from the command line."""

TYPE_CHECKING = False  # type checkers take it for true; importing typing would cost milliseconds

__all__ = ["ChurnModel", "ChurnPredictor", "compare_models", "train_model"]

_HOMES = {
    "ChurnModel": ".churn_model",
    "ChurnPredictor": ".inference",
    "compare_models": ".compare",
    "train_model": ".training",
}

if TYPE_CHECKING:
    from .churn_model import ChurnModel as ChurnModel
    from .compare import compare_models as compare_models
    from .inference import ChurnPredictor as ChurnPredictor
    from .training import train_model as train_model

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a name that is handed on when somebody first uses it."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        globals()[name] = getattr(import_module(_HOMES[name], __name__), name)
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOMES})
