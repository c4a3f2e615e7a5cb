"""Writes every message of the node as one JSON object a line."""

import json
import os
from pathlib import Path

from dora import Node

with Path(os.environ["VECTORS"]).open("w", encoding="utf-8") as lines:
    for event in Node():
        if event["type"] == "INPUT":
            facts = {key: value for key, value in event["metadata"].items() if key != "timestamp"}
            said = event["value"].to_pylist()
            print(json.dumps({"output": event["id"], "value": said, **facts}), file=lines, flush=True)
