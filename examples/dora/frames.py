"""Sends frames of an .npz file or a folder, one a tick, as dora's camera nodes do."""

import os
import time

import pyarrow as pa
from dora import Node

from edgessl.sources import open_source

node = Node()
batches = open_source(os.environ["FRAMES"], labelled=False).batches(1)
for event in node:
    if event["type"] == "STOP":
        break
    if event["type"] == "INPUT":
        batch = next(batches, None)
        if batch is None:
            break
        frame = batch.frames[0]
        facts = {"encoding": "rgb8", "height": frame.shape[0], "width": frame.shape[1], "stamp": time.time()}
        node.send_output("image", pa.array(frame.ravel()), facts)
