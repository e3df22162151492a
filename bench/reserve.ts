// SPDX-License-Identifier: Apache-2.0

import type { Verdict } from './goals.ts'
import { type Cell, digits, sideOf } from './measured.ts'

/** One plugin of ours with two IPAM plugins: what an address of Neutron costs beside one of a file, where the reserve has it. */
export const reserveSides = { file: 'host-local', cloud: 'tcnp-ipam' } as const

/** What an address from the reserve may cost beyond one of host-local, in ms. */
const ADDITION_MS = 1

/** Addresses kept ahead: more than the harness adds in one go. */
const RESERVE = 48
/** Calls in one go: all of them find an address in the reserve. */
export const BATCH = 16

/** A pod's configuration with addresses of the simulated cloud's first server, in which the node stands. */
export const cloudIpam = {
  type: 'tcnp-ipam',
  cloud: 'mooring',
  neutronConf: { mode: 'mix', hostPort: 'worker-1-eth0', reserve: RESERVE, usableAfterMs: 0, coolDownMs: 0 },
  routes: [{ dst: '0.0.0.0/0' }],
}

/** A shell's commands that start a cloud in the node and let what follows log in to it; it ends with the process group. */
export const startCloud = (mooring: string, file: string): string =>
  [
    `${mooring} simulator --port 5000 --wire-delay 0 --clouds-yaml ${file} >/dev/null 2>&1 &`,
    `while [ ! -s ${file} ]; do sleep 0.1; done;`,
    `export OS_CLIENT_CONFIG_FILE=${file};`,
  ].join(' ')

const pairsOf = (cells: readonly Cell[]) =>
  cells.flatMap(cell => {
    const [file, cloud] = [sideOf(cell, reserveSides.file), sideOf(cell, reserveSides.cloud)]
    return file === undefined || cloud === undefined ? [] : [{ cell, file, cloud }]
  })

/** Median / p99 in milliseconds of both. */
export const reserveLines = (cells: readonly Cell[]): string =>
  pairsOf(cells)
    .map(({ cell, file, cloud }) => {
      const [own, other] = [file, cloud].map(({ Median, P99 }) => `${digits(Median)} / ${digits(P99)}`)
      return `${cell.Verb} veth-route, ${cell.Pods} pods: host-local ${own}, tcnp-ipam from the reserve ${other}`
    })
    .join('\n')

/** Whether an address of the cloud costs as little more as it has to. */
export const judgeReserve = (cells: readonly Cell[]): Verdict[] =>
  pairsOf(cells)
    .filter(({ cell }) => cell.Verb === 'ADD')
    .map(({ cell, file, cloud }) => ({
      goal: `ADD, ${cell.Pods} pods: median of tcnp-ipam from the reserve at most ${ADDITION_MS} ms above host-local`,
      measured: `${(cloud.Median - file.Median).toFixed(2)} ms`,
      met: cloud.Median - file.Median <= ADDITION_MS,
    }))
