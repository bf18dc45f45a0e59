"""The usual home-made server: pickles with a length before them, a connection for each call.

python bench/pickle_echo.py BYTES prints the milliseconds of a ping and of so many bytes there and back (medians), as JSON.
"""

import json
import pickle
import socket
import statistics
import struct
import sys
import threading
import time


def read(stream, count):
    data = bytearray()
    while len(data) < count:
        data += stream.recv(min(1 << 20, count - len(data)))
    return bytes(data)


def serve(listener):
    while True:
        stream, _ = listener.accept()
        asked = pickle.loads(read(stream, struct.unpack(">I", read(stream, 4))[0]))
        answer = pickle.dumps(asked.get("pixels", {"pong": True}))
        stream.sendall(struct.pack(">I", len(answer)) + answer)
        stream.close()


def call(address, asked):
    with socket.create_connection(address) as stream:
        data = pickle.dumps(asked)
        stream.sendall(struct.pack(">I", len(data)) + data)
        return pickle.loads(read(stream, struct.unpack(">I", read(stream, 4))[0]))


def median(address, asked, count):
    times = []
    for _ in range(count):
        start = time.perf_counter()
        call(address, asked)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen()
threading.Thread(target=serve, args=(listener,), daemon=True).start()
pixels = bytes(int(sys.argv[1]))
address = listener.getsockname()
print(json.dumps({"ping_ms": median(address, {"cmd": "ping"}, 500), "both_ways_ms": median(address, {"pixels": pixels}, 20)}))
