"""What every backend promises, held to by Inarch's conformance kit."""

from __future__ import annotations

from inarch.conformance.testing import Conformance


class TestAcme(Conformance):
    backend = "acme"
