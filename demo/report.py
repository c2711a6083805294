#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws the story of a job as one HTML page that needs nothing else: what ran where and when, how
far the program was, where it paused, what was sent, and what each VM's CPUs did.

usage: report.py STORY.json REPORT.html

The story (all times are seconds since its beginning):
    title, verdict ("right" or "WRONG"), machine, seconds
    steps     [{"at", "text"}]                     what was done
    lanes     [{"vm", "spans": [{"from", "to", "node", "state"}]}]
                                                   state: starting, running, moving, saving, lost
    progress  [{"at", "step"}]                     of the program
    cpu       {VM: [[at, seconds of CPU]]}
    sent      [{"what", "bytes", "seconds"}]       migrations, checkpoints, restores
    pauses    [{"what", "ms"}]
    figures   [["name", "value"]]
"""

import html
import json
import sys

WIDTH, LEFT, RIGHT = 960, 110, 20
NODE_COLOURS = ["#3b78c2", "#3d9970", "#c9822b", "#8a5fb0", "#b4475c", "#5f8a8b"]
LINE_COLOURS = NODE_COLOURS
STATE_STYLE = {
    "starting": 'fill-opacity="0.35"',
    "running": 'fill-opacity="0.9"',
    "moving": 'fill-opacity="0.9" stroke="#222" stroke-width="2"',
    "saving": 'fill-opacity="0.6" stroke="#222" stroke-dasharray="3 2"',
    "lost": 'fill-opacity="0.12" stroke="#b00" stroke-dasharray="2 3"',
}
STYLE = """
:root { --ink: #1d2329; --dim: #66707a; --line: #d9dee3; --paper: #fff; --good: #2b7a3f; --bad: #b3261e }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --dim: #98a2ac; --line: #39424b; --paper: #15191d; --good: #6fce86; --bad: #ff8a80 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 1000px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.6em; margin-bottom: 0 } h2 { font-size: 1.15em; margin: 1.8em 0 .3em }
.sub, .note { color: var(--dim) } .note { font-size: .9em; margin: .1em 0 .6em }
.right { color: var(--good) } .wrong { color: var(--bad) }
svg { width: 100%; height: auto; display: block } svg text { fill: var(--ink); font: 12px system-ui, sans-serif }
svg .dim { fill: var(--dim) } svg .axis { stroke: var(--line) }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .25em .6em .25em 0;
  border-bottom: 1px solid var(--line); vertical-align: top } td.n { text-align: right; font-variant-numeric: tabular-nums }
ol { padding-left: 1.4em } li span { color: var(--dim); font-variant-numeric: tabular-nums }
"""


def text(x, y, words, cls="", anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{cls}" text-anchor="{anchor}">{html.escape(str(words))}</text>'


def ticks(top, wanted=6):
    """Round numbers from 0 to top."""
    if top <= 0:
        return [0]
    step = 10 ** len(str(int(top)))
    while top / step < wanted:
        step = step / 2 if str(step)[0] != "5" else step / 2.5
    return [i * step for i in range(int(top / step) + 1)]


def number(x):
    return f"{x:.0f}" if x == int(x) else f"{x:g}"


class Plot:
    """Time to the right; what is drawn above it is the caller's."""

    def __init__(self, seconds, height, top=18):
        self.seconds, self.height, self.top, self.parts = max(seconds, 1), height, top, []
        for t in ticks(self.seconds, 8):
            x = self.x(t)
            self.parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + height}"/>')
            self.parts.append(text(x, top + height + 15, f"{number(t)} s", "dim", "middle"))

    def x(self, t):
        return LEFT + (WIDTH - LEFT - RIGHT) * t / self.seconds

    def scale(self, most, unit=""):
        for v in ticks(most, 4):
            y = self.y(v, most)
            self.parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            self.parts.append(text(LEFT - 8, y + 4, number(v) + unit, "dim", "end"))

    def y(self, v, most):
        return self.top + self.height * (1 - v / most)

    def line(self, points, most, colour):
        way = " ".join(f"{self.x(t):.1f},{self.y(v, most):.1f}" for t, v in points)
        self.parts.append(f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2"/>')

    def marks(self, steps):
        written = 0
        for n, step in enumerate(steps, 1):
            x = self.x(step["at"])
            self.parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{self.top}" y2="{self.top + self.height}" '
                              'stroke="currentColor" stroke-opacity="0.5" stroke-dasharray="2 3"/>')
            if x > written + 14:
                self.parts.append(text(x, self.top - 5, n, "dim", "middle"))
                written = x

    def svg(self):
        return (f'<svg viewBox="0 0 {WIDTH} {self.top + self.height + 22}" role="img">'
                + "".join(self.parts) + "</svg>")


def draw_lanes(story):
    nodes = sorted({s["node"] for lane in story["lanes"] for s in lane["spans"]})
    colour = {n: NODE_COLOURS[i % len(NODE_COLOURS)] for i, n in enumerate(nodes)}
    plot = Plot(story["seconds"], 34 * len(story["lanes"]))
    for i, lane in enumerate(story["lanes"]):
        y = plot.top + 34 * i + 5
        plot.parts.append(text(LEFT - 8, y + 17, lane["vm"], "", "end"))
        for s in lane["spans"]:
            x, end = plot.x(s["from"]), plot.x(s["to"])
            plot.parts.append(f'<rect x="{x:.1f}" y="{y}" width="{max(end - x, 1.5):.1f}" height="24" rx="3" '
                              f'fill="{colour[s["node"]]}" {STATE_STYLE.get(s["state"], "")}>'
                              f'<title>{html.escape(lane["vm"])}: {html.escape(s["state"])} at {html.escape(s["node"])}, '
                              f'{s["from"]:.1f} to {s["to"]:.1f} s</title></rect>')
            if end - x > 60:
                plot.parts.append(f'<text x="{x + 6:.1f}" y="{y + 16}" style="fill:#fff">{html.escape(s["node"])}</text>')
    plot.marks(story["steps"])
    return plot.svg()


def draw_progress(story):
    points = [(p["at"], p["step"]) for p in story["progress"]]
    most = max(v for _, v in points) or 1
    plot = Plot(story["seconds"], 200)
    plot.scale(most)
    run = []
    for at, step in points:
        # A restart goes back to the checkpoint: another line.
        if run and step < run[-1][1]:
            plot.line(run, most, LINE_COLOURS[0])
            plot.parts.append(f'<circle cx="{plot.x(at):.1f}" cy="{plot.y(step, most):.1f}" r="4" fill="{NODE_COLOURS[4]}"/>')
            run = []
        run.append((at, step))
    plot.line(run, most, LINE_COLOURS[0])
    plot.marks(story["steps"])
    return plot.svg()


def rates(samples):
    """Share of a CPU between samples; a counter that goes back is another VMM's."""
    out = []
    for (t0, v0), (t1, v1) in zip(samples, samples[1:]):
        if t1 > t0 and v1 >= v0:
            out.append(((t0 + t1) / 2, (v1 - v0) / (t1 - t0)))
    return out


def draw_cpu(story):
    lines = {vm: rates(samples) for vm, samples in story["cpu"].items()}
    most = max([v for line in lines.values() for _, v in line] + [1])
    plot = Plot(story["seconds"], 160)
    plot.scale(most)
    for i, (vm, line) in enumerate(sorted(lines.items())):
        colour = LINE_COLOURS[i % len(LINE_COLOURS)]
        plot.line(line, most, colour)
        plot.parts.append(f'<text x="{LEFT + 8 + 110 * i}" y="{plot.top - 5}" style="fill:{colour}">{html.escape(vm)}</text>')
    return plot.svg()


def draw_bars(rows, unit):
    """rows: (name, value, more)."""
    most = max(v for _, v, _ in rows) or 1
    parts = []
    for i, (name, value, more) in enumerate(rows):
        y, width = 28 * i + 4, (WIDTH - 480) * value / most
        parts.append(text(230, y + 15, name, "", "end"))
        parts.append(f'<rect x="240" y="{y}" width="{max(width, 1.5):.1f}" height="20" rx="3" fill="{NODE_COLOURS[i % 6]}"/>')
        parts.append(text(248 + width, y + 15, f"{value:.4g} {unit}{more}", "dim"))
    return f'<svg viewBox="0 0 {WIDTH} {28 * len(rows) + 8}" role="img">{"".join(parts)}</svg>'


def sent_rows(story):
    return [(s["what"], s["bytes"] / max(s["seconds"], 1e-6) / 2**20,
             f" ({s['bytes'] / 2**20:.0f} MiB in {s['seconds']:.2f} s)") for s in story["sent"]]


def page(story):
    good = story["verdict"] == "right"
    out = [f"<h1>{html.escape(story['title'])}</h1>",
           f'<p class="sub">The program\'s answer: <b class="{"right" if good else "wrong"}">'
           f'{html.escape(story["verdict"])}</b>. {story["seconds"]:.0f} s; {html.escape(story["machine"])}.</p>']
    steps = "".join(f'<li>{html.escape(s["text"])} <span>at {s["at"]:.0f} s</span></li>' for s in story["steps"])
    out.append(f"<h2>What happened</h2><ol>{steps}</ol>")

    def section(title, note, drawing):
        out.append(f'<h2>{title}</h2><p class="note">{note}</p>{drawing}')

    if story["lanes"]:
        section("Where each VM was", "Colours are nodes; pale is starting, framed is moving, dashed is being saved, "
                "a red frame is lost with its node. The numbers are the steps above.", draw_lanes(story))
    if story["progress"]:
        section("How far the program was", "Steps that rank 0 has told. A flat part is a pause; a red dot is where the restart "
                "from the checkpoint went on.", draw_progress(story))
    if story["pauses"]:
        section("Pauses", "How long vCPUs stood still.",
                draw_bars([(p["what"], p["ms"], "") for p in story["pauses"]], "ms"))
    if story["sent"]:
        section("Memory that was moved", "Rate of the whole operation.", draw_bars(sent_rows(story), "MiB/s"))
    if story["cpu"]:
        section("CPU time of each VM", "Share of a CPU of its node.", draw_cpu(story))
    rows = "".join(f"<tr><td>{html.escape(str(k))}</td><td class=n>{html.escape(str(v))}</td></tr>" for k, v in story["figures"])
    out.append(f"<h2>Figures</h2><table>{rows}</table>")
    return (f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f'<title>{html.escape(story["title"])}</title><style>{STYLE}</style>{"".join(out)}</html>\n')


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as f:
        story = json.load(f)
    with open(sys.argv[2], "w", encoding="utf-8") as f:
        f.write(page(story))


if __name__ == "__main__":
    main()
