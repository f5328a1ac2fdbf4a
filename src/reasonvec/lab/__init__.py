"""The lab: a toy world, tiny models and the demo that shows the whole method on a laptop's CPU."""

from reasonvec.training import require

require("demo", "torch", "transformers", "trl", "accelerate", "datasets", "scipy", "statsmodels", "plotly", "jinja2")
