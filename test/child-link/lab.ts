// SPDX-License-Identifier: Apache-2.0

// A node with macvlan or ipvlan, and what their tests do all the time.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import type { TestContext } from 'node:test'
import {
  type Attachment,
  assertSameState,
  type CallOptions,
  makeLab,
  makeNetns,
  type Netns,
  type Node,
  type Outcome,
  type RunningAgent,
  resultOf,
  run,
  skip,
  type Verb,
} from '../nodelab.ts'

export type Kind = 'macvlan' | 'ipvlan'
export const RELEASED = { code: 0, stdout: '' }
export const silent = ({ code, stdout }: Outcome) => ({ code, stdout })
let containers = 0

/** Why tests of the kind cannot run here; false where they can. */
export function skipWithout(kind: Kind): string | false {
  if (skip) return skip
  try {
    run('unshare', [
      '-n',
      'sh',
      '-c',
      `ip link add name p type veth peer name q && ip link add link p name c type ${kind}`,
    ])
    return false
  } catch {
    return `this kernel has no ${kind}: see lab/vmlab`
  }
}

/** A node with a kind's plugin, and what its tests do all the time. */
export type ChildLab = {
  readonly node: Node
  readonly router: Netns
  /** A configuration with host-local; keys with the value undefined are left out. */
  config(more?: object): Record<string, unknown>
  /** A new container. */
  newPod(more?: Partial<Attachment>): { pod: Netns; it: Attachment }
  call(verb: Verb, it: Attachment, more?: object, options?: CallOptions): Promise<Outcome>
  /** ADD that has to succeed, and CHECK of it. @returns the result */
  // biome-ignore lint/suspicious/noExplicitAny: the shape of a result is what the tests look at
  add(it: Attachment, more?: object, options?: CallOptions): Promise<any>
  del(it: Attachment, more?: object): Promise<void>
  assertNothingLeft(when?: string): void
}

export const v4 = [
  { subnet: '10.10.10.0/24', rangeStart: '10.10.10.19', rangeEnd: '10.10.10.199', gateway: '10.10.10.1' },
]
export const v6 = [{ subnet: 'fd00:10::/64', rangeStart: 'fd00:10::19', gateway: 'fd00:10::1' }]
export const dualStack = (node: Node) => ({
  type: 'host-local',
  dataDir: node.leases,
  ranges: [v4, v6],
  routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
})

/** Keys in place of those that the configuration has; undefined takes one away. */
const withoutUndefined = (keys: object) =>
  Object.fromEntries(Object.entries(keys).filter(([, value]) => value !== undefined))

export function childLab(
  kind: Kind,
  mode: Node['mode'],
): ChildLab & { start(): Promise<void>; stop(): Promise<void>; agent(): RunningAgent } {
  let lab: { node: Node; router: Netns; kept: string[]; agent: RunningAgent | undefined }
  const config = (more: object = {}) =>
    withoutUndefined({ ...lab.node.config(), type: kind, cniVersion: '1.1.0', ...more })
  const call: ChildLab['call'] = (verb, it, more = {}, options = {}) =>
    lab.node.call(verb, { ...it, type: kind, config: config(more) }, options)
  const assertNothingLeft = (when?: string) => assertSameState(lab.node.state(), lab.kept, when)
  return {
    get node() {
      return lab.node
    },
    get router() {
      return lab.router
    },
    agent: () => lab.agent!,
    async start() {
      const { router, nodes } = makeLab({ mode })
      const node = nodes[0]!
      lab = { node, router, kept: [], agent: mode === 'agent' ? await node.startAgent() : undefined }
      lab.kept = node.state()
    },
    stop: async () => lab.agent?.[Symbol.asyncDispose](),
    config,
    call,
    newPod(more = {}) {
      const pod = makeNetns('pod')
      return { pod, it: { containerId: `c${containers++}`, netns: pod.path, ...more } }
    },
    async add(it, more = {}, options) {
      const result = resultOf(await call('ADD', it, more, options))
      const { cniVersion = '0.1.0' } = config(more) as { cniVersion?: string }
      if (cniVersion >= '0.4')
        assert.deepEqual(silent(await call('CHECK', it, { ...more, prevResult: result }, options)), RELEASED)
      return result
    },
    async del(it, more) {
      assert.deepEqual(silent(await call('DEL', it, more)), RELEASED)
    },
    assertNothingLeft,
  }
}

/** What the tests of every subject have at hand. */
export type ChildSuite = {
  readonly kind: Kind
  readonly lab: ChildLab
  /** A new container, detached behind a test that fails. */
  pod(more?: Partial<Attachment>): { pod: Netns; it: Attachment }
  /** For what is the same code for every kind: under the kernel of lab/vmlab each second is twenty. */
  testOnce(name: string, run: (context: TestContext) => Promise<void>): void
}

export const stateOfLinks = (netns: Netns): string => netns.ip('-o link show')

/** Takes the records away, as if the journal had been lost. */
export function forget({ dataDir }: Node): void {
  const db = new DatabaseSync(join(dataDir, 'journal.db'))
  db.exec('PRAGMA busy_timeout = 5000; DELETE FROM attachment')
  db.close()
}
