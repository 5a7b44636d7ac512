"""The frame of the report: one self-contained HTML page."""

from string import Template
from typing import Final

import plotly.offline

# Under this policy, a browser refuses anything from another address. The library comes last: the text is shown before it
# is parsed.
_PAGE: Final = Template(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline';
 style-src 'unsafe-inline'; img-src data: blob:">
<title>$title</title>
<style>$style</style>
</head>
<body>
$body
<script>$plotly</script>
<script>$script</script>
</body>
</html>
"""
)

# Also that of the page that looks at a run.
STYLE: Final = """
:root {
  --ink: #1c2024; --soft: #56606c; --line: #d9dee4; --page: #fff; --card: #f5f7f9;
  --accent: #2f6299; --up: #1f66ad; --down: #b3303f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6e9ed; --soft: #a8b1bc; --line: #363d46; --page: #14171a; --card: #1d2227;
    --accent: #8ab6e6; --up: #7fb4ea; --down: #f28b96;
  }
}
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 64rem;
  background: var(--page); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif;
  overflow-wrap: break-word;
}
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .75rem; }
h2 { margin: 3rem 0 .5rem; padding-top: 1.2rem; border-top: 2px solid var(--line); line-height: 1.25; }
h3 { margin: 2.4rem 0 .4rem; }
h4 { margin: 1.6rem 0 .3rem; font-size: 1.05rem; }
h5 { margin: 1rem 0 .3rem; font-size: .95rem; }
p, table, figcaption, dl.terms { max-width: 46rem; }
p { margin: .5rem 0; }
a { color: var(--accent); }
a:focus-visible, summary:focus-visible, .plot:focus-visible, pre:focus-visible {
  outline: 3px solid var(--accent); outline-offset: 2px; border-radius: .2rem;
}
.skip { position: absolute; left: -99rem; }
.skip:focus { position: static; }
code { font-size: .9em; }
pre code { overflow-wrap: normal; }
pre {
  overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .3rem;
  padding: .6rem .8rem; margin: .4rem 0; line-height: 1.4;
}
nav ul { list-style: none; padding: 0; margin: .3rem 0; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; }
nav > ul { display: block; }
nav > ul > li { margin: .4rem 0; font-weight: 600; }
nav ul ul { font-weight: 400; font-size: .95rem; }
table { border-collapse: collapse; margin: 1rem 0; width: 100%; }
th, td { padding: .28rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 400; text-align: left; padding-right: 1rem; }
td { text-align: right; min-width: 6.5rem; font-variant-numeric: tabular-nums; }
th, td, code { overflow-wrap: anywhere; }
dl.terms { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; }
dl.terms dt { font-weight: 600; }
dl.terms dd { margin: 0; color: var(--soft); }
figure { margin: 1.2rem 0; }
figcaption, .caption { color: var(--soft); font-size: .93rem; }
.plot { width: 100%; overflow: hidden; }
.more { display: flex; flex-wrap: wrap; gap: 0 1.2rem; margin-top: .2rem; }
.fold { font-size: .9rem; min-width: 0; max-width: 100%; }
.fold[open] { flex-basis: 100%; }
summary { cursor: pointer; }
.fold > summary { color: var(--accent); }
.note { border-left: 4px solid var(--accent); background: var(--card); padding: .6rem 1rem; }
.choice > details { background: var(--card); border-radius: .5rem; padding: .5rem 1rem; margin: .5rem 0; }
.choice > details > summary { overflow-wrap: anywhere; }
.input > summary { display: flex; gap: 1rem; align-items: center; }
.input > summary::before { content: "▸"; color: var(--soft); }
.input[open] > summary::before { content: "▾"; }
ol.samples {
  list-style: none; margin: 0; padding: 0;
  display: grid; gap: .6rem; grid-template-columns: repeat(auto-fill, minmax(8.2rem, 1fr));
}
ol.samples li {
  background: var(--page); border: 1px solid var(--line); border-radius: .4rem;
  padding: .5rem .6rem; font-size: .92rem;
}
ol.samples li > * { display: block; overflow-wrap: anywhere; }
ol.samples small { color: var(--soft); }
.both { display: grid; gap: 0 1.5rem; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); }
img {
  width: 4.5rem; height: 4.5rem; flex: none; object-fit: contain;
  image-rendering: pixelated; border-radius: .2rem;
}
.up, .down { font-weight: 600; font-variant-numeric: tabular-nums; }
.up { color: var(--up); }
.down { color: var(--down); }
footer { margin-top: 3rem; color: var(--soft); font-size: .88rem; }
/* Plotly writes colours into the elements; these rules give them the page's colours. */
.js-plotly-plot [class*="tick"] text, .js-plotly-plot .infolayer text { fill: var(--ink) !important; }
.js-plotly-plot .gridlayer path { stroke: var(--line) !important; }
.js-plotly-plot .zerolinelayer path { stroke: var(--soft) !important; }
@media (max-width: 34rem) {
  h1 { font-size: 1.5rem; }
  dl.terms { grid-template-columns: 1fr; }
  dl.terms dd { margin-bottom: .5rem; }
  .choice > details { padding: .5rem .6rem; }
}
@media print { .more { display: none; } }
"""

# A figure is drawn when it comes near the view or its part is unfolded, so a page with many figures opens fast.
_SCRIPT: Final = """
(() => {
  const config = {responsive: true, displaylogo: false, displayModeBar: false};
  const draw = element => {
    if (element.dataset.drawn) return;
    element.dataset.drawn = "yes";
    const known = JSON.parse(document.querySelector(`script[data-for="${element.id}"]`).textContent);
    // Scrolling the page by touch should not zoom the figures.
    if (matchMedia("(pointer: coarse)").matches) known.layout.dragmode = false;
    Plotly.newPlot(element, known.data, known.layout, config);
  };
  const observer = new IntersectionObserver(entries => {
    for (const entry of entries.filter(entry => entry.isIntersecting)) {
      observer.unobserve(entry.target);
      draw(entry.target);
    }
  }, {rootMargin: "600px"});
  const plots = document.querySelectorAll(".plot");
  plots.forEach(element => observer.observe(element));
  addEventListener("beforeprint", () => plots.forEach(element => element.offsetParent && draw(element)));
})();
"""


def page(title: str, body: str) -> str:
    """Return a whole page.

    Parameters
    ----------
    title, body : str
        HTML, with text escaped.

    Returns
    -------
    str
        HTML with style sheet, script and plotly.js (about 4.8 MB) inlined.
    """
    return _PAGE.substitute(
        title=title, body=body, style=STYLE, script=_SCRIPT, plotly=plotly.offline.get_plotlyjs()
    )
