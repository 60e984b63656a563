"""Third floor: cone programs, their solutions made exact, and the derivative of their optimality conditions."""

from .border import inward, sealed
from .canonical_form import Call, CanonicalForm
from .feasibility import attributes, distance, others, violation

__all__ = ["Call", "CanonicalForm", "attributes", "distance", "inward", "others", "sealed", "violation"]
