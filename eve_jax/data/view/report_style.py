"""The style sheet that reports of evaluations and of curation share, for light and dark displays."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c1f24; --soft: #5f6670; --rule: #d9dce1; --paper: #fff; --card: #f7f8fa;
  --bar: #2f6db5; --back: #e6e8ec; --right: #16794a; --wrong: #b3292e; --part: #8a6100; --v1: #c8701a; --v2: #8a5bb5 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --soft: #a3abb6; --rule: #3a4049; --paper: #16181c; --card: #1f2329;
    --bar: #6aa5e8; --back: #333942; --right: #5cc78f; --wrong: #f08a8d; --part: #e0b65c; --v1: #f0a35e; --v2: #c3a0e8 }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 84rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.45 system-ui, "DejaVu Sans", sans-serif }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; overflow-wrap: anywhere }
h2 { font-size: 1.2rem; margin: 0 }
h3 { font-size: 1rem; margin: 1rem 0 .4rem }
p, li { color: var(--soft); font-size: .9rem; margin: .3rem 0; overflow-wrap: anywhere }
ul { padding-left: 1.2rem; margin: .4rem 0 }
a { color: inherit }
.failed { color: var(--wrong) }
section { border-top: 1px solid var(--rule); margin-top: 1.5rem; padding-top: 1rem }
.table { overflow-x: auto }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top }
th { color: var(--soft); font-weight: 600 }
td.n, th.n { text-align: right; white-space: nowrap }
td.text { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 9rem; max-width: 24rem; unicode-bidi: isolate }
.bar { display: block; margin-top: .25rem }
.bar .back { fill: var(--back) } .bar .value { fill: var(--bar) }
.bar .ends { stroke: var(--ink); stroke-width: 1.5; vector-effect: non-scaling-stroke }
.bar .v1 { stroke: var(--v1) } .bar .v2 { stroke: var(--v2) }
.bar .v1, .bar .v2 { stroke-width: 3; vector-effect: non-scaling-stroke }
.v1t { color: var(--v1) } .v2t { color: var(--v2) }
summary { cursor: pointer; font-size: .9rem; margin-top: .6rem }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: .8rem }
article { background: var(--card); border-left: .3rem solid var(--soft); padding: .6rem .7rem; min-width: 0;
  font-size: .88rem }
article.right { border-color: var(--right) } article.wrong { border-color: var(--wrong) }
article.part { border-color: var(--part) }
article img { max-width: 100%; height: auto; margin: 0 .3rem .3rem 0; vertical-align: top }
article pre { font: inherit; white-space: pre-wrap; overflow-wrap: anywhere; margin: .2rem 0; unicode-bidi: isolate }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem .7rem; margin: .3rem 0 0 }
dt { color: var(--soft) }
dd { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; min-width: 0; unicode-bidi: isolate }
"""
