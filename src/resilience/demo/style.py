"""How the report looks, on narrow and wide windows."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """\
body {padding: 32px; font-variant-numeric: tabular-nums}
main {max-width: 1180px; margin: 0 auto}
h1 {margin: 0 0 6px; font-size: 21px; line-height: 1.35; font-weight: 600}
h2 {margin: 0; font-size: 16px; font-weight: 600}
p {margin: 0}
section {margin-top: 34px}
.soft, small {color: var(--soft); font-size: 13px}
table {border-collapse: collapse}
th, td {padding: 3px 0 3px 28px; text-align: right; font-weight: normal; vertical-align: baseline}
th:first-child {padding-left: 0; text-align: left}
thead th {color: var(--soft); border-bottom: 1px solid var(--edge)}
.figures {margin: 22px 0 8px}
.figures .answered * {font-size: 17px; font-weight: 600}
.figures td {white-space: nowrap}
.key {display: flex; flex-wrap: wrap; gap: 4px 22px; margin: 6px 0 0; padding: 0; list-style: none;
  color: var(--soft); font-size: 13px}
.key li {display: flex; align-items: center; gap: 7px}
.key svg {width: 14px; height: 14px; flex: none}
.names {display: none}
.chart {display: grid; grid-template-columns: 170px 22px minmax(0, 1fr); margin-top: 10px}
.label {grid-column: 1; align-self: center; line-height: 1.3}
.label small {display: block}
.scale {grid-column: 2; position: relative; font-size: 11px; color: var(--soft)}
.scale span {position: absolute; right: 6px; line-height: 12px; margin-top: -6px}
.plot {grid-column: 3; position: relative; border: solid var(--edge); border-width: 0 1px}
.plot svg {display: block; width: 100%}
.rule {border-top-width: 1px}
.phases, .axis {height: 22px; font-size: 12px; color: var(--soft)}
.phases span, .axis span {position: absolute; top: 2px; white-space: nowrap}
.phases span {padding-left: 4px}
.phases b {font-weight: 600; color: var(--text)}
.phases, .axis {border: 0}
.axis span {transform: translateX(-50%)}
.axis .first {transform: none}
.axis .last {transform: translateX(-100%)}
.trouble {fill: var(--grid)}
.line {fill: none; stroke: var(--edge); vector-effect: non-scaling-stroke}
.zero {fill: none; stroke: var(--wait); vector-effect: non-scaling-stroke}
.answered {fill: var(--answered)}
.failed {fill: var(--failed)}
.open {fill: var(--soft)}
.closed, .half-open {fill: none; stroke: var(--soft); stroke-width: 1.5;
  vector-effect: non-scaling-stroke}
.half-open {fill: var(--ground); stroke: var(--text)}
.minute {width: 100%; margin-top: 8px}
.minute thead tr:first-child th {border: 0; padding-bottom: 0}
.minute thead th:empty, .minute tbody th {text-align: left; padding-left: 0; line-height: 1.35}
.minute tr > * {border-bottom: 1px solid var(--grid)}
.minute small {display: block}
.minute td, .minute .run {padding-left: 18px; width: 1%; white-space: nowrap}
.minute .first {padding-left: 40px}
.minute .what {display: none}
@media (max-width: 1040px) {
  .phases span {font-size: 0}
  .phases b {font-size: 12px}
  .names {display: flex; flex-wrap: wrap; gap: 2px 14px; margin-top: 4px}
  .minute, .minute thead, .minute tbody {display: block}
  .minute tr {display: grid; grid-template-columns: minmax(0, 1fr) 70px 90px 76px; padding: 8px 0;
    border-bottom: 1px solid var(--grid)}
  .minute tr > *, .minute .first {border: 0; padding: 1px 0; width: auto}
  .minute tbody th {grid-column: 1 / 5; padding: 0}
  .minute thead tr:first-child, .minute .again, .minute .asked {display: none}
  .minute thead th {font-size: 12px}
  .minute .what {display: block; text-align: left; color: var(--soft)}
}
@media (max-width: 760px) {
  body {padding: 20px 16px}
  h1 {font-size: 18px}
  section {margin-top: 28px}
  .figures {width: 100%}
  .figures .answered * {font-size: 15px}
  th, td {padding-left: 12px}
  .chart {grid-template-columns: 16px minmax(0, 1fr)}
  .label {grid-column: 1 / 3; margin-top: 10px}
  .label small {display: inline; margin-left: 6px}
  .label:empty {display: none}
  .scale {grid-column: 1}
  .scale span {right: 3px}
  .plot {grid-column: 2}
}
"""
