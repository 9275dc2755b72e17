"""What all tests share: the fixtures of the simulated edge host."""

pytest_plugins = ("tests.lab.fixtures",)
