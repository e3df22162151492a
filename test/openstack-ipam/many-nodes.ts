// SPDX-License-Identifier: Apache-2.0

// Many nodes in one process, each with a journal, a session and a pool of its own, that start their pods in one moment: the
// configuration as JSON on stdin, what became of it as JSON on stdout. A process of its own, because what the test runner
// does for each promise would be most of the work.

import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { setImmediate as otherWork, setTimeout as sleep } from 'node:timers/promises'
import { addressOf, type Node, nodeWithNic, startNode } from './node.ts'
import { starvedMs } from './starved.ts'

export type ManyNodes = {
  readonly openstackConf: object
  readonly ports: readonly { readonly id: string; readonly address: string; readonly mac: string }[]
  readonly pods: number
  /** Of each node, requests per second; none where it is not told. */
  readonly share?: number
}
export type ManyNodesReport = {
  readonly tookMs: number
  /** Of that, this process was ready to run and other processes had the processors. */
  readonly starvedMs: number
  readonly addresses: readonly string[]
  readonly failures: number
}

const { openstackConf, ports, pods, share } = JSON.parse(await text(process.stdin)) as ManyNodes
// In memory: 200 nodes have 200 disks, and this process waits for each of its own.
const directory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'mooring-many-'))
const nodes = ports.map((port, index) => {
  const gate = { watchful: true, ...(share !== undefined && { sharePerSecond: share }) }
  const host = nodeWithNic(port.address, port.mac)
  const node = startNode({ directory: join(directory, String(index)), host, longLived: true, gate })
  // Read back later: no pod waits for that.
  const neutronConf = { hostPort: port.id, reserve: 0, usableAfterMs: 0, coolDownMs: 0, verifyAfterMs: 60_000 }
  return { node, ipam: { openstackConf, neutronConf } }
})

let failures = 0
/** As the kubelet: a pod whose ADD failed for now is tried again. */
async function attach(node: Node, pod: string, ipam: object): Promise<string> {
  for (;;) {
    const reply = await node.call('ADD', pod, ipam, { timeoutMs: 100_000 })
    if (reply.exitCode === 0) return addressOf(reply)
    if (reply.json.code !== 11) throw new Error(reply.stdout)
    failures++
    await sleep(1_000)
  }
}

const begin = performance.now()
const starvedBeforeMs = starvedMs()
const all: Promise<string>[] = []
for (const { node, ipam } of nodes) {
  for (let pod = 0; pod < pods; pod++) all.push(attach(node, `pod-${pod}`, ipam))
  // Each node has a processor of its own: none must wait for the work of all the others.
  await otherWork()
}
const addresses = await Promise.all(all)
const report: ManyNodesReport = {
  tookMs: performance.now() - begin,
  starvedMs: starvedMs() - starvedBeforeMs,
  addresses,
  failures,
}
for (const { node } of nodes) await node[Symbol.asyncDispose]()
rmSync(directory, { recursive: true })
process.stdout.write(JSON.stringify(report))
