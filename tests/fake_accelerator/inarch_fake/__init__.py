"""A fake accelerator as a third party would bring it, which punishes a core that breaks the contract.

It proves, on any machine and in every test that runs on it, that the core
- keeps host and device apart, and reads results only through `download`, a little late (memory.py,
  device.py);
- lives with the backend's own page size and page layout, and names every page that changes (kv.py,
  attention.py);
- pads to the shapes that it is asked for, and lets neither padding nor unwritten memory, which are
  NaN, reach an answer (executor.py, kv.py);
- survives capture: a decode runs Python once for each shape and is then replayed, from buffers whose
  addresses must not change (executor.py).

Its metadata lies apart, in `installed`: with both folders on the path it is an installed plugin, with
an entry point; without, no other test sees it.
"""
