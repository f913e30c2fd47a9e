"""An Ascend NPU on the CPU, made of the real torch-npu wheel: see wheel.py."""
