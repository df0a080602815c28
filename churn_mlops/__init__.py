"""Customer-churn prediction: train, predict and serve from one package."""

TYPE_CHECKING = False  # type checkers take it for true; importing typing would cost milliseconds

__version__ = "0.1.0"
__all__ = ["ChurnModel", "ChurnPredictor"]

_HOMES = {"ChurnModel": ".models", "ChurnPredictor": ".models"}

if TYPE_CHECKING:
    from .models import ChurnModel as ChurnModel
    from .models import ChurnPredictor as ChurnPredictor

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
