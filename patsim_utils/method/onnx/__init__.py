"""ONNX Runtime as the engine of a trained model; nothing is sent to anybody."""

import os

# Else the package index's builds report their use to Microsoft, and keep a device's number in the cache
SILENCE = "ORT_DISABLE_TELEMETRY"
os.environ[SILENCE] = "1"
