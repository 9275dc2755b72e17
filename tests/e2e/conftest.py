"""One product for all end-to-end tests that leave it as they found it."""

from collections.abc import Iterator

import pytest

from tests.e2e.product import Product, product
from tests.lab.fixtures import Site
from tests.lab.host import EdgeHost


@pytest.fixture(scope="session")
def agent(edge: EdgeHost, plant: Site, office: Site) -> Iterator[Product]:
    """The product on the session's edge host, online."""
    with product(edge, edge.dir / "p") as running:
        yield running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is end to end."""
    for item in items:
        if "/e2e/" in str(item.path):
            item.add_marker(pytest.mark.e2e)
