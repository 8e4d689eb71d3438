from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import s3


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.Server]:
    with s3.serving(str(tmp_path_factory.mktemp("cache"))) as found:
        yield found


@pytest.fixture
def bucket(server: s3.Server, request: pytest.FixtureRequest) -> str:
    """A bucket of the test's own."""
    return server.bucket(f"bucket-{abs(hash(request.node.nodeid))}")
