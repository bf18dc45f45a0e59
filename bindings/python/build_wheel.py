"""Builds the wheel: the package with the library in it. A PEP 517 backend of the standard library alone.

The library is the one that LUNA_LIBRARY names, or else what `cargo build --release -p luna-ffi` makes.
"""

import base64
import hashlib
import os
import pathlib
import re
import subprocess
import sysconfig
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
NAMES = {"linux": "libluna.so", "macosx": "libluna.dylib", "win": "luna.dll"}


def _library() -> pathlib.Path:
    named = os.environ.get("LUNA_LIBRARY")
    if named:
        return pathlib.Path(named)
    root = HERE.parent.parent
    subprocess.run(["cargo", "build", "--release", "-p", "luna-ffi"], cwd=root, check=True)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    system = next(name for start, name in NAMES.items() if sysconfig.get_platform().startswith(start))
    return target / "release" / system


def _project() -> "dict[str, str]":
    text = (HERE / "pyproject.toml").read_text()
    return dict(re.findall(r'^(name|version|description|requires-python) = "(.*)"$', text, re.M))


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    project = _project()
    name = project["name"].replace("-", "_")
    stem = f"{name}-{project['version']}"
    tag = "py3-none-" + re.sub(r"[-.]", "_", sysconfig.get_platform())
    library = _library()
    files = {f"luna/{path.name}": path.read_bytes() for path in sorted((HERE / "luna").iterdir()) if path.is_file()}
    files[f"luna/lib/{library.name}"] = library.read_bytes()
    info = f"{stem}.dist-info"
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        f"Summary: {project['description']}\nRequires-Python: {project['requires-python']}\n"
    ).encode()
    files[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: luna\nRoot-Is-Purelib: false\nTag: {tag}\n".encode()
    lines = []
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(data)}\n")
    files[f"{info}/RECORD"] = ("".join(lines) + f"{info}/RECORD,,\n").encode()
    wheel = f"{stem}-{tag}.whl"
    with zipfile.ZipFile(pathlib.Path(wheel_directory) / wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return wheel


def build_sdist(sdist_directory, config_settings=None):
    raise NotImplementedError("the library is built from the whole repository: use `pip wheel bindings/python`")
