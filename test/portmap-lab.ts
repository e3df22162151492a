// SPDX-License-Identifier: Apache-2.0

// What the tests of portmap share.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterEach } from 'node:test'
import { type Attachment, type CallOptions, makeNetns, type Node, resultOf, type Verb } from './nodelab.ts'
import { suiteNode } from './suite-node.ts'

export const RELEASED = { code: 0, stdout: '' }
export const silent = ({ code, stdout }: { code: number | null; stdout: string }) => ({ code, stdout })
export type PortMapping = { hostPort?: unknown; containerPort?: unknown; protocol?: string; hostIP?: string }
export const web: PortMapping = { hostPort: 8080, containerPort: 80, protocol: 'tcp' }
export const dns: PortMapping = { hostPort: 53, containerPort: 5353, protocol: 'udp', hostIP: '10.10.10.8' }

let containers = 0
const made: Pod[] = []
/** A pod with an address of each family, as an earlier plugin of the chain would tell. */
export function newPod(netns: string, more: Partial<Attachment> = {}) {
  const id = containers++
  const it: Attachment = { containerId: `c${id}`, netns, type: 'portmap', ...more }
  const prevResult = {
    cniVersion: '1.0.0',
    interfaces: [{ name: `veth${id}` }, { name: it.ifName ?? 'eth0', sandbox: netns }],
    ips: [
      { address: `10.10.${20 + (id >> 8)}.${id & 255}/24`, interface: 1 },
      { address: `fd00:20::${id.toString(16)}/64`, interface: 1 },
    ],
    routes: [{ dst: '0.0.0.0/0' }],
    dns: { nameservers: ['192.0.2.53'] },
  }
  made.push({ it, prevResult })
  return { it, prevResult }
}
export type Pod = { it: Attachment; prevResult: object }

/** Calls portmap as the chain does. */
export const call = (
  node: Node,
  verb: Verb,
  { it, prevResult }: Pod,
  portMappings: PortMapping[],
  options: CallOptions = {},
) =>
  node.call(verb, it, {
    ...options,
    more: { type: 'portmap', prevResult, runtimeConfig: { portMappings }, ipam: undefined, ...options.more },
  })

export const nft = (node: Node, text: string) => node.run('nft', ...text.split(' '))
/** Elements of our maps and sets, one a line, with comments. */
export function elements(node: Node): string[] {
  const { nftables } = JSON.parse(nft(node, '-j list ruleset')) as { nftables: Record<string, Shown>[] }
  return nftables
    .flatMap(each => each['map'] ?? each['set'] ?? [])
    .filter(({ name }) => name.startsWith('portmap_'))
    .flatMap(({ name, elem = [] }) => elem.map(each => `${name} ${JSON.stringify(each)}`))
}
type Shown = { name: string; elem?: unknown[] }

/** Sets and rules of prefix lengths and mark bits stay, empty. */
const isForGood = (line: string) => line.includes('portmap') || /^nl\S+: (type|ct mark|\})/.test(line)

/** See `suiteNode`. */
export function portmapLab(mode: Node['mode']) {
  let netns = ''
  const at = suiteNode({
    mode,
    stateOf: node => node.state().filter(line => !isForGood(line)),
    /** Maps, rules. */
    async bringForGood(node) {
      netns = makeNetns('pod').path
      const first = newPod(netns)
      resultOf(await call(node, 'ADD', first, [web]))
      resultOf(await call(node, 'DEL', first, [web]))
    },
  })
  // So that a test that failed does not make the next ones fail.
  afterEach(async context => {
    const mine = made.splice(0)
    if (!('passed' in context && context.passed)) for (const pod of mine) await call(at.node, 'DEL', pod, [])
  })
  const { assertNothingLeft: assertSame } = at
  return Object.assign(at, {
    /** The namespace of every pod: none of these tests looks into it. */
    netns: () => netns,
    assertNothingLeft(when = 'something is left') {
      assert.deepEqual(elements(at.node), [], when)
      assertSame(when)
    },
  })
}

/** As if the journal had been lost. */
export function forgetRecord(node: Node, { it }: Pod): void {
  const db = new DatabaseSync(join(node.dataDir, 'journal.db'))
  try {
    db.exec('PRAGMA busy_timeout = 5000')
    db.prepare('DELETE FROM attachment WHERE container_id = ?').run(it.containerId)
  } finally {
    db.close()
  }
}
