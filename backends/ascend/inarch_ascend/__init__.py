"""Huawei Ascend NPUs for Inarch."""
