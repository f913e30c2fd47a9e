"""The test kit that any backend runs against itself: `inarch conformance BACKEND`.

What a backend promises is written down in `inarch.hal`; this package holds it to that, by cases that
are generated and can each be run again alone. A case passes, is refused (the backend said no, with a
reason: that is no failure), fails (it said yes and was wrong) or ends in an error (it raised).

    level 0  package.py   imports nothing heavy, probes, opens, and says why not
    level 1  schema.py    what it declares is well-formed; predicates answer
    level 2  facets/      numbers, on the device that the backend simulates
    level 3  facets/      the same cases on the device itself
    level 4  models.py    whole models through the engine, against the reference backend
    level 5  roofline.py  how near to the device's own limits; reported, never judged

facets/ has one module for each kind of thing that a backend can bring. It lies above the engine, not
below `hal` where the contract is, because whole models are part of what is tested.
"""
