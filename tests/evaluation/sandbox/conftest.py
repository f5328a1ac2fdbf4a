"""What the host must have for these tests; where it has not, they say which layer is missing."""

import sys

import pytest

from reasonvec.evaluation.sandbox import self_test


@pytest.fixture(scope="session")
def holding():
    """The self-test's report on a host where everything required holds."""
    if sys.platform != "linux":
        pytest.skip("the sandbox is for Linux")
    report = self_test()
    if report.missing:
        pytest.skip(f"this host lacks {'; '.join(f'{one.name} ({one.layer}): {one.detail}' for one in report.missing)}")
    return report
