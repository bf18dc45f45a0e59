"""Saves pictures with luna-cli to a store that moto's server plays, and reads them back with boto3.

Run with moto[server], boto3 and Pillow, and a luna-cli that was built with the feature object-store:

    cargo build -p luna-cli --features object-store
    python tests/object_store.py target/debug/luna-cli [--kills 20]

Everything runs on this machine; the servers listen on free ports.
"""
import argparse
import hashlib
import io
import json
import logging
import os
import random
import subprocess
import tempfile
import time
from pathlib import Path

import boto3
import numpy as np
from moto.server import ThreadedMotoServer
from PIL import Image


class Bench:
    def __init__(self, program, folder, endpoint):
        self.program, self.folder = program, folder
        self.client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1",
                                   aws_access_key_id="me", aws_secret_access_key="hush")
        self.client.create_bucket(Bucket="pictures")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | {
            "AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "hush", "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": "true"}

    def start(self, *arguments, **changed):
        command = [self.program, "save", *map(str, arguments), "--json"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self.folder,
                                env=self.environment | changed, text=True)

    def save(self, *arguments, status=0, **changed):
        child = self.start(*arguments, **changed)
        out, err = child.communicate()
        assert child.returncode == status, (child.returncode, out, err)
        return json.loads(out)

    def objects(self, prefix):
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket="pictures", Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def read(self, key):
        return self.client.get_object(Bucket="pictures", Key=key)


def picture(folder, number):
    """Noise whose first pixels say which it is."""
    array = np.random.default_rng(number).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    array[0, 0] = number // 256, number % 256, 77
    Image.fromarray(array).save(folder / f"{number}.png")
    return f"{number}.png"


def number_of(bytes_):
    pixel = np.asarray(Image.open(io.BytesIO(bytes_)))[0, 0]
    assert pixel[2] == 77
    return int(pixel[0]) * 256 + int(pixel[1])


def objects_are_what_was_told(bench):
    names = [picture(bench.folder, number) for number in range(3)]
    told = bench.save(*names, "-o", "s3://pictures/a/été", "--template", "%seed%/100%%_%counter:3%", "--seed", 7,
                      "--parameters", "a lake, été")
    assert (told["written"], told["failed"]) == (3, 0), told
    for saved in told["pictures"]:
        key = saved["path"].removeprefix("s3://pictures/")
        found = bench.read(key)
        content = found["Body"].read()
        assert hashlib.sha256(content).hexdigest() == saved["sha256"] and len(content) == saved["bytes"]
        assert found["ContentType"] == "image/png"
        opened = Image.open(io.BytesIO(content))
        assert opened.info["parameters"] == "a lake, été"
        assert np.array_equal(np.asarray(opened), np.asarray(Image.open(bench.folder / saved["input"])))
    assert sorted(bench.objects("a/")) == [f"a/été/7/100%_00{number}.png" for number in (1, 2, 3)]


def nothing_is_overwritten_unless_asked(bench):
    for _ in range(3):
        bench.save("0.png", "-o", "s3://pictures/b", "--template", "x")
    assert sorted(bench.objects("b/")) == ["b/x-2.png", "b/x-3.png", "b/x.png"]
    told = bench.save("1.png", "-o", "s3://pictures/b", "--template", "x", "--exists", "refuse", status=2)
    assert "s3://pictures/b/x.png exists already" in told["pictures"][0]["error"], told
    assert number_of(bench.read("b/x.png")["Body"].read()) == 0
    bench.save("1.png", "-o", "s3://pictures/b", "--template", "x", "--exists", "replace")
    assert number_of(bench.read("b/x.png")["Body"].read()) == 1


def processes_share_the_numbers(bench):
    names = [picture(bench.folder, number) for number in range(10, 50)]
    children = [bench.start(*names[start::4], "-o", "s3://pictures/c", "--template", "%counter:3%") for start in range(4)]
    told = [json.loads(child.communicate()[0]) for child in children]
    assert sum(one["written"] for one in told) == 40, told
    assert sorted(bench.objects("c/")) == [f"c/{number:03}.png" for number in range(1, 41)]
    assert sorted(number_of(bench.read(key)["Body"].read()) for key in bench.objects("c/")) == list(range(10, 50))


def refusals_say_why(bench):
    told = bench.save("0.png", "-o", "s3://nosuchbucket/x", "--template", "x", status=5)
    assert "create the bucket" in told["pictures"][0]["error"], told
    told = bench.save("0.png", "-o", "s3://pictures/x", "--template", "x", status=6, AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert "s3://pictures/x/x.png" in told["pictures"][0]["error"], told


def kills_lose_nothing_and_double_nothing(bench, kills):
    rng = random.Random(0)
    first = 100
    # How long a run takes by itself here, so that the kills fall into the work.
    start = time.perf_counter()
    bench.save("0.png", "-o", "s3://pictures/timing", "--template", "x", "--spool", "spool")
    usual = time.perf_counter() - start
    for _ in range(kills):
        names = [picture(bench.folder, number) for number in range(first, first + 4)]
        first += 4
        child = bench.start(*names, "-o", "s3://pictures/d", "--template", rng.choice(["%counter:4%", "same"]), "--spool", "spool")
        time.sleep(rng.uniform(0, 2 * usual))
        child.kill()
        child.communicate()
    last = picture(bench.folder, first)
    told = bench.save(last, "-o", "s3://pictures/d", "--template", "last", "--spool", "spool")
    assert told["failed"] == 0, told
    assert os.listdir(bench.folder / "spool") == ["lock"]
    found = [number_of(bench.read(key)["Body"].read()) for key in bench.objects("d/")]
    assert len(found) == len(set(found)), "put twice"
    assert first in found and len(found) > kills // 2, found
    return len(found), told["recovered"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options.program.resolve(), Path(folder), f"http://{host}:{port}")
        for check in (objects_are_what_was_told, nothing_is_overwritten_unless_asked, processes_share_the_numbers, refusals_say_why):
            check(bench)
            print(f"ok: {check.__name__}")
        pictures, recovered = kills_lose_nothing_and_double_nothing(bench, options.kills)
        print(f"ok: kills_lose_nothing_and_double_nothing: {options.kills} kills, {pictures} pictures, {recovered} of them finished by the last run")
    server.stop()


main()
