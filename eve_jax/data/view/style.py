"""The style sheet of the page of rows."""

STYLE = """
:root { --ink: #1c1f24; --gray: #5f6670; --rule: #d9dce1; --pad: #e6e8ec; --paper: #fff; color-scheme: light }
.c1 { --c: #2f6db5 } .c2 { --c: #c8701a } .c3 { --c: #24804f } .c4 { --c: #8a5bb5 }
.c5 { --c: #c9484b } .c6 { --c: #147f8c } .c7 { --c: #86663f } .c8 { --c: #b94a86 }
* { box-sizing: border-box }
body > svg { position: absolute }
body { margin: 0 auto; max-width: 90rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.45 system-ui, "DejaVu Sans", sans-serif }
h1 { font-size: 1.5rem; margin: 0 }
h2 { font-size: 1.1rem; margin: 0 }
h3 { font-size: 1rem; margin: 0; overflow-wrap: anywhere }
p, figcaption, .zoom { margin: 0; color: var(--gray); font-size: .9rem }
ul { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: .5rem 0 1rem; padding: 0; list-style: none;
  font-size: .9rem }
ul i { display: inline-block; width: 1.4rem; height: .8rem; margin-right: .4rem }
ul i.target { height: .25rem; vertical-align: .25rem }
.patch { background: var(--c); fill: var(--c) }
.special { background: color-mix(in srgb, var(--c), #000 50%); fill: color-mix(in srgb, var(--c), #000 50%) }
.text { background: color-mix(in srgb, var(--c), #fff 55%); fill: color-mix(in srgb, var(--c), #fff 55%) }
.pad { background: var(--pad); fill: var(--pad) }
.target { background: var(--ink); fill: var(--ink) }
.edge { fill: var(--paper) }
.slots { pointer-events: none }
.line { fill: none; stroke: var(--paper); stroke-opacity: .7; vector-effect: non-scaling-stroke; pointer-events: none }
section { border-top: 1px solid var(--rule); margin-top: 1rem; padding-top: .75rem }
figure { margin: .5rem 0 }
.bar { overflow-x: auto }
.bar svg { display: block }
.zoom:not(:has(:checked)) ~ figure svg { width: 100% }
.zoom:not(:has(:checked)) ~ figure .many { display: none }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); gap: 1rem;
  align-items: start; margin-top: 1rem }
article { border-left: .4rem solid var(--c); padding: 0 0 .25rem .75rem; min-width: 0 }
article:target { background: color-mix(in srgb, var(--c), #fff 88%) }
article div { overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere }
span, u, bdi { unicode-bidi: isolate }
span { color: var(--gray) }
u { color: var(--c); text-decoration-thickness: 2px; text-underline-offset: 3px }
.image { display: block; margin: .3rem 0; cursor: zoom-in }
.image svg { display: block; height: auto; max-width: 100% }
.image:has(:checked) { cursor: zoom-out }
.image:has(:checked) svg { width: max(100%, 60rem); max-width: none }
.image:has(:checked) image { image-rendering: pixelated }
.image input { position: absolute; opacity: 0 }
.image:has(:focus-visible) { outline: 2px solid var(--c) }
"""
