"""Prints luna/_abi.py, the header for ctypes: python bindings/python/generate.py > bindings/python/luna/_abi.py"""

import pathlib
import re

HEADER = pathlib.Path(__file__).resolve().parent.parent.parent / "include" / "luna.h"
TYPES = {
    "int32_t": "ctypes.c_int32", "uint32_t": "ctypes.c_uint32", "int64_t": "ctypes.c_int64",
    "uint64_t": "ctypes.c_uint64", "size_t": "ctypes.c_size_t", "float": "ctypes.c_float",
    "double": "ctypes.c_double", "void": "None",
}


def ctype(text: str, structs: "set[str]", enums: "set[str]") -> str:
    """The ctypes type of a C type, without the name that it declares."""
    text = " ".join(text.replace("*", " * ").replace("const", " ").replace("struct ", " ").split())
    base, stars = text.split(" ")[0], text.count("*")
    if base == "char" and stars:
        kind, stars = "ctypes.c_char_p", stars - 1
    elif base == "void" and stars:
        kind, stars = "ctypes.c_void_p", stars - 1
    else:
        kind = base if base in structs else "ctypes.c_int32" if base in enums else TYPES.get(base, base)
    for _ in range(stars):
        kind = f"ctypes.POINTER({kind})"
    return kind


def declared(text: str) -> "tuple[str, str, str]":
    """Type, name and array bound of a declaration such as `int64_t shape[8]`."""
    match = re.fullmatch(r"(.*?)(\w+)(?:\[(\w+)\])?", " ".join(text.split()))
    assert match, text
    return match[1], match[2], match[3] or ""


def generate(header: str) -> str:
    text = re.sub(r"/\*.*?\*/", "", header, flags=re.S)
    text = re.sub(r"//.*", "", text)
    enums = set(re.findall(r"^typedef \w+ (luna_\w+);", text, re.M))
    structs = re.findall(r"^typedef struct (luna_\w+) \{(.*?)\}", text, re.M | re.S)
    names = {name for name, _ in structs}
    lines = ['"""The header for ctypes. Generated from include/luna.h by generate.py; do not edit."""', ""]
    lines += ["# mypy: disable-error-code=\"valid-type\"", "import ctypes", "from typing import Any", "", "# fmt: off"]
    for name, value in re.findall(r"^#define (LUNA_[A-Z_]+) (\d+)$", text, re.M):
        lines.append(f"{name} = {value}")
    for body in re.findall(r"^enum luna_\w+[^{]*\{(.*?)\}", text, re.M | re.S):
        lines += [f"{name} = {value}" for name, value in re.findall(r"(\w+) = (-?\d+)", body)]
    for result, name, arguments in re.findall(r"^typedef (\w+) \(\*(\w+)\)\((.*?)\);", text, re.M | re.S):
        kinds = [ctype(declared(one)[0], names, enums) for one in arguments.split(",")]
        lines.append(f"{name} = ctypes.CFUNCTYPE({', '.join([TYPES[result]] + kinds)})")
    for name, body in structs:
        lines += ["", "", f"class {name}(ctypes.Structure):", "    _fields_ = ["]
        for field in filter(None, (field.strip() for field in body.split(";"))):
            kind, label, bound = declared(field)
            kind = ctype(kind, names, enums)
            lines.append(f'        ("{label}", {kind}{" * " + bound if bound else ""}),')
        lines.append("    ]")
    lines += ["", "", "def declare(library: Any) -> None:", '    """States what every function takes and gives."""']
    for result, name, arguments in re.findall(r"^([\w *]+?)\b(luna_\w+)\(([^()]*)\);", text, re.M | re.S):
        arguments = [] if arguments.strip() == "void" else arguments.split(",")
        kinds = [ctype(declared(one)[0], names, enums) for one in arguments]
        lines.append(f"    library.{name}.argtypes = [{', '.join(kinds)}]")
        lines.append(f"    library.{name}.restype = {ctype(result, names, enums)}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(generate(HEADER.read_text()), end="")
