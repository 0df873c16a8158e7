"""The fused fast path on the CPU: networks of common layers, in compiled loops, pair by pair through all layers."""
