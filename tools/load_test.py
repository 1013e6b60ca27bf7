"""What a service bears: requests a second, their times and errors, with many clients at once on this machine.

    python tools/load_test.py --clients 16 --candidates 100 --requests 4

It starts `patsim serve` and ends it. Each client sends its requests one after the other, of which the
first is not counted; each ranks targets of the sample for one of its anchors.
"""

import argparse
import json
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import psutil

from patsim_utils.data.splits import load


def bodies(count: int, candidates: int) -> list[bytes]:
    """What so many requests to `/rerank` send."""
    rows = load("sample")["train"]
    random = np.random.default_rng(0)
    requests = []
    for row in rows.iloc[random.integers(len(rows), size=count)].itertuples():
        targets = random.choice(rows["target"].unique(), candidates).tolist()
        requests.append({"query": row.anchor, "context": row.context, "texts": targets})
    return [json.dumps(text).encode() for text in requests]


def send(address: str, body: bytes) -> float:
    """Seconds of a request; NaN where it fails."""
    request = urllib.request.Request(f"{address}/rerank", body, {"Content-Type": "application/json"})
    began = time.perf_counter()
    try:
        urllib.request.urlopen(request, timeout=600).read()
    except OSError:
        return np.nan
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--requests", type=int, default=4)
    parser.add_argument("--port", default="8099")
    options = parser.parse_args()
    command = [sys.executable, "-m", "patsim_utils", "serve", "--port", options.port]
    with subprocess.Popen(command) as service:
        while service.poll() is None and socket.socket().connect_ex(("127.0.0.1", int(options.port))):
            time.sleep(0.2)
        work = bodies(options.clients * (1 + options.requests), options.candidates)
        one = partial(send, f"http://127.0.0.1:{options.port}")
        try:
            with ThreadPoolExecutor(options.clients) as clients:
                list(clients.map(one, work[: options.clients]))
                began = time.perf_counter()
                used = sum(psutil.Process(service.pid).cpu_times())
                times = list(clients.map(one, work[options.clients :]))
                used = sum(psutil.Process(service.pid).cpu_times()) - used
                seconds = time.perf_counter() - began
        finally:
            service.terminate()
    middle, high = np.nanpercentile(times, [50, 99])
    print(f"{len(times)} requests of {options.candidates} candidates by {options.clients} clients:")
    print(f"{len(times) / seconds:.2f} a second, median {middle:.2f} s, p99 {high:.2f} s")
    print(f"{used / len(times):.2f} s of CPU a request, {np.isnan(times).sum()} errors")


if __name__ == "__main__":
    main()
