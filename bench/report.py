# SPDX-License-Identifier: Apache-2.0
"""What all benches do with figures: a line each, beside its goal, and JSON in a folder."""

import json
import os
import re
import statistics
import time


def first(path, default="?"):
    """What a small file has."""
    try:
        with open(path, encoding="utf-8") as f:
            return f.read().strip()
    except OSError:
        return default


class Report:
    def __init__(self, **machine):
        """machine: what else there is to say of where it was measured."""
        self.figures = []
        self.machine = machine

    def add(self, name, values, unit, goal=None, least=None):
        """A figure; goal is the most, least the least it should be. Returns the median."""
        values = values if isinstance(values, list) else [values]
        median = statistics.median(values)
        figure = {"name": name, "unit": unit, "median": median, "min": min(values),
                  "max": max(values), "runs": len(values)}
        text = f"{name:<46} {median:10.3f} {unit:<8}"
        if len(values) > 1:
            text += f" ({min(values):.3f} to {max(values):.3f}, {len(values)} runs)"
        if goal is not None:
            figure["goal"] = goal
            text += f"  goal <= {goal:g}: {'met' if median <= goal else 'MISSED'}"
        if least is not None:
            figure["least"] = least
            text += f"  goal >= {least:g}: {'met' if median >= least else 'MISSED'}"
        self.figures.append(figure)
        print(text, flush=True)
        return median

    def save(self, folder, name=""):
        """Writes FOLDER/[NAME-]DATE-TIME.json."""
        model = re.search(r"model name\s*: (.*)", first("/proc/cpuinfo"))
        machine = {"cpus": os.cpu_count(), "kernel": os.uname().release,
                   "model": model.group(1) if model else "?", "date": time.strftime("%Y-%m-%d"),
                   "load": os.getloadavg()[0], **self.machine}
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, f"{name}{'-' if name else ''}{time.strftime('%Y%m%d-%H%M%S')}.json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"machine": machine, "figures": self.figures}, f, indent=1)
        print("written:", path)
