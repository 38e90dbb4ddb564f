"""The former name of `prefect_stagegate.gate`, which checks of other packages import."""

import warnings

from prefect_stagegate.gate import CheckContext, CheckResult, Parameters, Renewal, check

__all__ = ["Answer", "CheckContext", "CheckResult", "Parameters", "Question", "Renewal", "check"]

Answer, Question = CheckResult, CheckContext

warnings.warn(f"{__name__} is prefect_stagegate.gate now", DeprecationWarning, stacklevel=2)
