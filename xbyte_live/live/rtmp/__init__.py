"""RTMP, from bytes to FLV tags: one layer a module, and one adapter that owns the sockets."""
