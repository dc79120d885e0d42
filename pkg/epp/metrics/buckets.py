"""Upper bounds of every histogram; dashboards depend on them, so they never change.

The names follow what is measured. ``+Inf`` is implied.
Reference: GAIE v0.3.0 and v1.3.0 pkg/epp/metrics/metrics.go, llm-d-router ebab687
pkg/epp/metrics/llm_d_router_metrics.go.
"""

LATENCY_SECONDS = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0,
    1200.0, 1800.0, 2700.0, 3600.0,
)  # fmt: skip

REQUEST_BYTES = tuple(float(2**exponent) for exponent in range(6, 31))

RESPONSE_BYTES = (
    1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0,
    32778.0, 65536.0,
)  # fmt: skip
"""32778 is no power of two, but it is what every release of the reference uses."""

INPUT_TOKENS = (*RESPONSE_BYTES, 131072.0, 262144.0, 524288.0, 1048576.0)

OUTPUT_TOKENS = (
    1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0,
)  # fmt: skip

NORMALIZED_SECONDS_PER_TOKEN = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip

PLUGIN_SECONDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)

FIRST_TOKEN_SECONDS = tuple(bound for bound in LATENCY_SECONDS if bound <= 120)

STREAMING_SECONDS_PER_TOKEN = (
    0.0005, 0.00205, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.125, 0.15, 0.2, 0.3, 0.4, 0.5,
    0.6, 0.8, 1.0, 2.0,
)  # fmt: skip

REQUEST_PROCESSING_SECONDS = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.025, 0.04, 0.06, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0,
)  # fmt: skip

RESPONSE_PROCESSING_SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0,
)  # fmt: skip
