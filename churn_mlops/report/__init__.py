"""The evaluation page of a model, and panels to try it out."""

TYPE_CHECKING = False  # type checkers take it for true; importing typing would cost milliseconds

__all__ = ["evaluate_report", "threshold_slider", "what_if"]

_HOMES = {"evaluate_report": ".report", "threshold_slider": ".panels", "what_if": ".panels"}

if TYPE_CHECKING:
    from .panels import threshold_slider as threshold_slider
    from .panels import what_if as what_if
    from .report import evaluate_report as evaluate_report

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
