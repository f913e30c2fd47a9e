"""The families that come with the core: a file here is a family or some near relatives.

What several families share in reading a config lies in `parts`, which holds no family.
"""
