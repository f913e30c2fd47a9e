"""Where KV pages are kept: the allocator of page ids and the prefix tree over them. No tensors."""
