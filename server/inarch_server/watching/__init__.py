"""What the server tells about itself: health, metrics, traces, logs and the live view."""
