"""Customer-churn prediction: train, predict and serve from one package."""

from typing import TYPE_CHECKING

from .utils import lazy_exports

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .models import ChurnModel as ChurnModel
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__, {"ChurnModel": ".models"})
