// SPDX-License-Identifier: Apache-2.0

// Goal: a port costs the same however many there are, and whichever request fails, all or nothing is there. Needs root;
// works in a namespace of its own.

import assert from 'node:assert/strict'
import { closeSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { parseIp, parsePrefix } from '#base'
import { firewall, HostContext, type HostPorts, portmap } from '#host'
import { NetlinkError, type Transport } from '#netlink'
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
    assert.ok(beside < alone * 3 + 1, `${beside} ms against ${alone} ms`)
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

/** The node, whose kernel refuses the `at`-th send of all. */
function failing(at: number, errno: number): { context: HostContext; sends: () => number } {
  let sends = 0
  const through = (transport: Transport): Transport => ({
    execute(requests, deadline) {
      if (++sends === at) throw new NetlinkError(requests[0]!.about, errno)
      return transport.execute(requests, deadline)
    },
  })
  const sockets = { netfilter: through(node.netfilter), route: through(node.route) }
  return { context: sockets as unknown as HostContext, sends: () => sends }
}

test('whichever send of an ADD the kernel refuses, it is an error and no port is left', { skip }, t => {
  inNamespace(fd, () => {
    const ports = portsOf('podnet one eth0', 80, 3)
    for (const isFirst of [true, false]) {
      let failed = 0
      for (let at = 1; ; at++) {
        if (isFirst) firewall.removeTable(node.netfilter)
        const { context, sends } = failing(at, 12)
        try {
          portmap.attachPorts(context, ports)
        } catch (error) {
          assert.match((error as Error).message, /^Cannot .+\(ENOMEM\)$/)
          assert.deepEqual(portmap.listPorts(node.netfilter), [], `send ${at}`)
          failed++
          continue
        }
        // Later sends than there are.
        assert.ok(sends() < at, `${sends()}`)
        break
      }
      t.diagnostic(`${isFirst ? 'first' : 'next'} ADD: ${failed} sends failed`)
      assert.deepEqual(portmap.checkPorts(node.netfilter, ports), [])
      portmap.detachPorts(node, ports)
    }
  })
})

test('whichever send of a DEL the kernel refuses, it is an error, and the next DEL ends the ports', { skip }, () => {
  inNamespace(fd, () => {
    const ports = portsOf('podnet one eth0', 80, 3)
    const unknown = { owner: ports.owner, network: 'podnet', containerId: 'one' }
    for (const owned of [ports, unknown])
      for (let at = 1, isOver = false; !isOver; at++) {
        portmap.attachPorts(node, ports)
        const { context, sends } = failing(at, 12)
        try {
          portmap.detachPorts(context, owned)
          isOver = sends() < at
          assert.ok(isOver)
        } catch (error) {
          assert.match((error as Error).message, /^Cannot .+\(ENOMEM\)$/)
          portmap.detachPorts(node, owned)
        }
        assert.deepEqual(portmap.listPorts(node.netfilter), [], `send ${at}`)
      }
  })
})
