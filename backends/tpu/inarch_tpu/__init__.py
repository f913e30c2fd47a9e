"""Google TPUs for Inarch."""
