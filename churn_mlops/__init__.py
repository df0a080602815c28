"""Customer-churn prediction: train, predict and serve from one package."""

from .lazy import lazy_exports

TYPE_CHECKING = False  # type checkers take it for true; importing typing would cost milliseconds

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .models import ChurnModel as ChurnModel
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__, {"ChurnModel": ".models"})
