"""The page's stylesheet: light, dark and print, one column on a telephone."""

CSS = """
:root{
  --ground:#fff;--ink:#1b1e23;--soft:#5a6270;--rule:#d7dbe2;--panel:#f5f6f8;--accent:#0b5ea8;--fail:#a32014;
  --warn:#8a5300;--fine:#0b6b4b
}
@media (prefers-color-scheme:dark){
:root{
  --ground:#14161a;--ink:#e6e8ec;--soft:#a2aab8;--rule:#363b45;--panel:#1d2026;--accent:#7cb8f2;
  --fail:#ff9384;--warn:#f0b457;--fine:#6fd3ac
}}
*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%}
body{
  margin:0 auto;padding:1.5rem clamp(.9rem,3vw,2.5rem) 4rem;max-width:74rem;background:var(--ground);
  color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif
}
h1{font-size:1.7rem;line-height:1.2;margin:.2rem 0 .4rem}
h2{font-size:1.25rem;margin:2.6rem 0 .6rem;padding-bottom:.25rem;border-bottom:1px solid var(--rule)}
h3{font-size:1rem;margin:1.4rem 0 .4rem}
p,li{max-width:46rem}
a{color:var(--accent)}
nav ul{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;list-style:none;padding:0;margin:.6rem 0 0}
.note{color:var(--soft);font-size:.9rem}
.scroll{overflow-x:auto;margin:.6rem 0}
table{border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);padding-bottom:.35rem;max-width:46rem}
th,td{padding:.4rem .8rem .4rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--rule)}
thead th{border-bottom:2px solid var(--ink);font-weight:600}
tbody th{font-weight:600;white-space:nowrap}
td.figure,th.figure{text-align:right;white-space:nowrap;padding-left:.8rem}
td small,th small{display:block;font-weight:400;color:var(--soft);font-size:.8rem}
.paper{
  font-style:italic;border-left:3px solid var(--warn);padding-left:.4rem;margin-left:.2rem;color:var(--soft)
}
td small.paper{display:inline-block;margin-top:.15rem}
table.published{border-left:3px solid var(--warn)}
table.published th,table.published td{font-style:italic;padding-left:.8rem}
.grid{
  display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,27rem),1fr));gap:1rem;align-items:start
}
figure{
  margin:.6rem 0;padding:.8rem;background:var(--panel);border:1px solid var(--rule);border-radius:.4rem;
  min-width:0
}
figure svg{display:block;width:100%;height:auto;margin:0 auto}
figure svg *{stroke-linejoin:round;stroke-linecap:butt}
figure svg text{font-family:"DejaVu Sans",Verdana,system-ui,sans-serif}
figcaption{color:var(--soft);font-size:.88rem;margin-top:.5rem}
.finding{
  border:1px solid var(--rule);border-left:5px solid var(--warn);border-radius:.3rem;padding:.6rem .9rem;
  margin:.7rem 0;background:var(--panel)
}
.finding.fail{border-left-color:var(--fail)}
.finding h3{margin:0 0 .2rem}
.finding p{margin:.3rem 0}
.level{
  display:inline-block;font-size:.78rem;letter-spacing:.04em;font-weight:700;color:var(--warn);
  border:1px solid currentColor;border-radius:.2rem;padding:0 .35rem;margin-right:.4rem
}
.fail .level{color:var(--fail)}
.finding ul{margin:.3rem 0;padding-left:1.1rem;font-size:.88rem;color:var(--soft)}
.finding li{overflow-wrap:anywhere}
.fine{color:var(--fine)}
details{margin:.5rem 0}
summary{cursor:pointer;font-weight:600}
pre{
  overflow-x:auto;background:var(--panel);border:1px solid var(--rule);border-radius:.3rem;padding:.7rem;
  font:.8rem/1.45 ui-monospace,"DejaVu Sans Mono",Menlo,monospace
}
code{font-family:ui-monospace,"DejaVu Sans Mono",Menlo,monospace;font-size:.9em;overflow-wrap:anywhere}
td code{white-space:normal}
@media print{
:root{
  --ground:#fff;--ink:#000;--soft:#444;--rule:#bbb;--panel:#fff;--accent:#000;--fail:#a32014;--warn:#8a5300;
  --fine:#0b6b4b
}
html{color-scheme:light}
body{padding:0;max-width:none;font-size:10.5pt}
nav{display:none}
figure,.finding,tr{break-inside:avoid}
h2,h3{break-after:avoid}
.scroll,pre{overflow:visible}
pre{white-space:pre-wrap}
.grid{grid-template-columns:1fr 1fr}
a{text-decoration:none}
@page{margin:16mm}
}
"""
