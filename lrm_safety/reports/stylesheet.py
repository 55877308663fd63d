"""The page's stylesheet: light, dark and print, one column on a telephone."""

CSS = """
:root{
  --ground:#fff;--ink:#1b1e23;--soft:#5a6270;--rule:#d7dbe2;--panel:#f5f6f8;--accent:#0b5ea8;--fail:#a32014;
  --warn:#8a5300;--fine:#0b6b4b;--shade:#0003;--paper:#fbf3e2
}
@media (prefers-color-scheme:dark){
:root{
  --ground:#14161a;--ink:#e6e8ec;--soft:#a2aab8;--rule:#363b45;--panel:#1d2026;--accent:#7cb8f2;
  --fail:#ff9384;--warn:#f0b457;--fine:#6fd3ac;--shade:#fff4;--paper:#2b2415
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
nav ul{display:flex;flex-wrap:wrap;gap:.35rem 1.1rem;list-style:none;padding:0;margin:.6rem 0 0}
.note{color:var(--soft);font-size:.9rem}
.caption{color:var(--soft);font-size:.92rem;margin:1rem 0 .35rem}
h3+.caption,summary+.caption{margin-top:.2rem}
.scroll{
  overflow-x:auto;margin:0 0 .6rem;
  background:linear-gradient(to left,var(--ground) 30%,transparent) right/2rem 100% no-repeat local,
    linear-gradient(to left,var(--shade),transparent) right/.7rem 100% no-repeat scroll
}
.scroll:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
table{border-collapse:separate;border-spacing:0;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:.4rem .8rem .4rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--rule)}
thead th{border-bottom:2px solid var(--ink);font-weight:600;vertical-align:bottom}
thead th small{margin-left:auto;max-width:9rem}
tbody th{font-weight:600;white-space:nowrap}
tbody th,thead th:first-child{position:sticky;left:0;background:var(--ground)}
td.figure,th.figure{text-align:right;white-space:nowrap;padding-left:.8rem}
td small,th small{display:block;font-weight:400;color:var(--soft);font-size:.82rem;white-space:normal}
td.figure small{white-space:nowrap}
.paper{
  font-style:italic;border-left:3px solid var(--warn);padding:.05rem .4rem;color:var(--ink);background:var(--paper);
  white-space:nowrap
}
td small.paper{display:inline-block;margin-top:.2rem;color:var(--ink)}
table.published td,table.published th{font-style:italic;background:var(--paper)}
table.published th:first-child{border-left:3px solid var(--warn);padding-left:.8rem}
.grid{
  display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,21rem),1fr));gap:1rem;margin:.6rem 0
}
.grid>p{grid-column:1/-1;margin:.6rem 0 0}
figure{
  margin:0;padding:.7rem;background:var(--panel);border:1px solid var(--rule);border-radius:.4rem;min-width:0;
  max-width:36rem
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
td code,th code{overflow-wrap:break-word}
@media (max-width:40rem){
tbody th{white-space:normal;max-width:11rem}
td:not(.figure):last-child{min-width:11rem}
tbody th code{overflow-wrap:anywhere;font-size:.82em}
}
@media print{
:root{
  --ground:#fff;--ink:#000;--soft:#444;--rule:#bbb;--panel:#fff;--accent:#000;--fail:#a32014;--warn:#8a5300;
  --fine:#0b6b4b;--shade:#0000;--paper:#fff
}
html{color-scheme:light;font-size:10pt}
body{padding:0;max-width:none;font-size:1rem}
nav{display:none}
figure,.finding,tr{break-inside:avoid}
h2,h3,.caption,summary{break-after:avoid}
.scroll,pre{overflow:visible}
table{font-size:.85rem}
td small,th small{font-size:.75rem}
tbody th,thead th:first-child{position:static}
tbody th,td.figure,th.figure{white-space:normal}
figure svg{max-height:22cm}
details:not(:has(pre))::details-content{content-visibility:visible;display:block;height:auto}
pre{white-space:pre-wrap}
.grid{grid-template-columns:1fr 1fr}
a{text-decoration:none}
@page{margin:16mm}
}
"""
