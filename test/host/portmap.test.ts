// SPDX-License-Identifier: Apache-2.0

// Goal: a port costs the same however many there are. Needs root; works in a namespace of its own.

import assert from 'node:assert/strict'
import { closeSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { parseIp, parsePrefix } from '#base'
import { HostContext, type HostPorts, portmap } from '#host'
import { inNamespace, makeNamespace } from './station.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'
const ROUNDS = 60

/** Ports of a pod from `first` on. */
const portsOf = (owner: string, first: number, count: number): HostPorts => ({
  owner,
  ports: Array.from({ length: count }, (_, index) => ({
    ...{ protocol: 6, hostPort: first + index },
    ...{ pod: parseIp('10.99.0.2'), podPort: 80 },
  })),
  masquerade: { bit: 13, all: false, near: [parsePrefix('10.99.0.2/24')] },
  conditions: { v4: [], v6: [] },
})

let fd: number
let node: HostContext
before(() => {
  if (skip) return
  fd = makeNamespace()
  node = inNamespace(fd, () => new HostContext())
})
after(() => {
  if (skip) return
  node[Symbol.dispose]()
  closeSync(fd)
})

/** Median of adding and removing two ports. */
function time(): number {
  const ports = portsOf('podnet one eth0', 80, 2)
  const times = Array.from({ length: ROUNDS }, () => {
    const begin = performance.now()
    assert.equal(portmap.attachPorts(node, ports).taken, undefined)
    portmap.detachPorts(node, ports)
    return performance.now() - begin
  })
  return times.sort((a, b) => a - b)[ROUNDS >> 1]!
}

test('ports beside 2000 others cost what they cost alone; one pod may have all of them', { skip }, t => {
  inNamespace(fd, () => {
    time()
    const alone = time()
    const many = portsOf('podnet many eth0', 10_000, 2000)
    assert.equal(portmap.attachPorts(node, many).taken, undefined)
    assert.deepEqual(portmap.checkPorts(node.netfilter, many), [])
    const beside = time()
    t.diagnostic(`two ports on and off: ${alone.toFixed(2)} ms alone, ${beside.toFixed(2)} ms beside 2000`)
    assert.ok(beside < alone * 1.5 + 0.5, `${beside} ms against ${alone} ms`)
    const taken = portmap.attachPorts(node, portsOf('podnet two eth0', 10_900, 400)).taken
    assert.equal(taken?.owner, 'podnet many eth0')
    assert.deepEqual(
      portmap.listPorts(node.netfilter).map(({ owner, ports }) => [owner, ports.length]),
      [['podnet many eth0', 2000]],
    )
    portmap.detachPorts(node, { owner: 'podnet many eth0', network: 'podnet', containerId: 'many' })
    assert.deepEqual(portmap.listPorts(node.netfilter), [])
  })
})
