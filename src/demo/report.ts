// SPDX-License-Identifier: Apache-2.0

import { type Comparison, median } from './comparison.ts'
import type { Attached } from './pods.ts'
import type { Passage } from './probes.ts'

/** What a demo found. */
export type Report = {
  /** The cloud in words. */
  cloud: string
  network: string
  attached: (Attached & { fromReserve: boolean })[]
  /** Further ADDs from the reserve, of namespaces that were detached at once; milliseconds. */
  furtherMs: number[]
  comparison: Comparison | undefined
  passages: Passage[]
  /** What is there after the end and was not before, or could not be looked at; in words. */
  leftovers: string[]
  /** Why it ended early. */
  failure: string | undefined
  /** From start to end, without the set-up of packages. */
  seconds: number
}

/** True where everything was as promised. */
export const isAsPromised = ({ passages, leftovers, failure }: Report): boolean =>
  failure === undefined && leftovers.length === 0 && passages.length > 0 && passages.every(({ passes }) => passes)

/** For machines. */
export const reportJson = (report: Report): string =>
  JSON.stringify(
    {
      ok: isAsPromised(report),
      cloud: report.cloud,
      network: report.network,
      pods: report.attached.map(({ pod, address, ms, fromReserve }) => ({
        name: pod.name,
        machine: pod.machine,
        netns: pod.netns,
        address,
        addMs: round(ms),
        fromReserve,
      })),
      addMs: {
        fromReserve: warmTimes(report).map(round),
        vethRouteHostLocal: report.comparison && round(report.comparison.mooringMs),
        goPtpHostLocal: report.comparison?.goMs === undefined ? undefined : round(report.comparison.goMs),
        emptyProcess: report.comparison && round(report.comparison.nothingMs),
      },
      paths: report.passages.map(({ ms, afterMs, ...passage }) => ({
        ...passage,
        ms: ms === undefined ? undefined : round(ms),
        afterMs: round(afterMs),
      })),
      leftovers: report.leftovers,
      failure: report.failure,
      seconds: round(report.seconds),
    },
    undefined,
    1,
  )

const round = (value: number) => Math.round(value * 100) / 100

/** The pods and what their ADD took, for people. */
export function podTable({ attached, furtherMs, comparison, cloud, network }: Report): string {
  const rows = attached.map(({ pod, address, ms, fromReserve }) => [
    pod.name,
    pod.machine,
    address,
    inMs(ms),
    fromReserve ? 'address from the reserve' : 'Neutron makes the address, and the wire learns of it',
  ])
  return [
    `Pods on network ${network} of ${cloud}, attached by veth-route + tcnp-ipam`,
    table([['pod', 'on', 'address', 'ADD', ''], ...rows]),
    ...comparisonTable({ attached, furtherMs, comparison }),
  ].join('\n')
}

function comparisonTable({
  attached,
  furtherMs,
  comparison,
}: Pick<Report, 'attached' | 'furtherMs' | 'comparison'>): string[] {
  const warm = warmTimes({ attached, furtherMs })
  const row = (what: string, ms: number | undefined, calls: number) =>
    ms === undefined ? [] : [[what, inMs(ms), `${calls} calls`]]
  const rows = [
    ...row(
      'veth-route + tcnp-ipam, address from the reserve',
      warm.length === 0 ? undefined : median(warm),
      warm.length,
    ),
    ...(comparison === undefined
      ? []
      : [
          ...row('veth-route + host-local', comparison.mooringMs, comparison.rounds),
          ...row('Go ptp + host-local, by turns with it', comparison.goMs, comparison.rounds),
          ...row('a process that does nothing', comparison.nothingMs, comparison.rounds),
        ]),
  ]
  return rows.length === 0 ? [] : ['', table([['ADD from exec to exit', 'median', ''], ...rows])]
}

/** ADDs that took their address from the reserve. */
const warmTimes = ({ attached, furtherMs }: Pick<Report, 'attached' | 'furtherMs'>) => [
  ...attached.filter(({ fromReserve }) => fromReserve).map(({ ms }) => ms),
  ...furtherMs,
]

/** The packets, for people. */
export function passageTable({ passages }: Report): string {
  const rows = passages.map(({ what, from, to, passes, fault, ms, lost, afterMs, way }) => [
    what,
    `${from} > ${to}`,
    passes ? (lost === 0 ? 'passes' : `passes after ${(afterMs / 1000).toFixed(1)} s`) : `FAILS: ${fault}`,
    ms === undefined ? '' : inMs(ms),
    way.join(' > '),
  ])
  return ['Packets', table([['path', '', 'result', 'there and back', 'way of the packet'], ...rows])].join('\n')
}

/** The last words. */
export function closing(report: Report): string {
  const { leftovers, passages, failure } = report
  const failed = passages.filter(({ passes }) => !passes).length
  const lines = [
    ...(failure === undefined ? [] : [`Ended early: ${failure}`]),
    ...(failed === 0 ? [] : [`${failed} of ${passages.length} paths fail`]),
    leftovers.length === 0
      ? 'Nothing is left: kernel, journals and Neutron are as before'
      : `Left behind:\n${leftovers.map(each => `  ${each}`).join('\n')}`,
    isAsPromised(report) ? `As promised, in ${report.seconds.toFixed(1)} s` : 'Not as promised',
  ]
  return lines.join('\n')
}

const inMs = (ms: number) => `${ms < 100 ? ms.toFixed(2) : ms.toFixed(0)} ms`

/** Rows in columns, two spaces apart. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map(row => row[column]!.length)))
  return rows.map(row => `  ${row.map((cell, column) => cell.padEnd(widths[column]!)).join('  ')}`.trimEnd()).join('\n')
}
