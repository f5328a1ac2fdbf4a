"""The report: one self-contained HTML page from results at hand. Measures nothing and reads no checkpoint."""

from reasonvec.errors import MissingExtraError

try:
    from reasonvec.report.page import write_report
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in {"jinja2", "markupsafe", "plotly", "scipy", "statsmodels"}:
        raise
    raise MissingExtraError(
        f"The report needs the Python package {error.name}, which is not installed. Install what reports need with: "
        f'pip install "reasonvec[report]"'
    ) from error

__all__ = ["write_report"]
