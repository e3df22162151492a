// SPDX-License-Identifier: Apache-2.0

// What the tests of veth-route share: a node on which the first pods came and went, pods, and what is left.

import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, afterEach, before, beforeEach, test } from 'node:test'
import {
  type Attachment,
  assertSameState,
  type CallOptions,
  cniBin,
  folder,
  makeLab,
  makeNetns,
  type Netns,
  type Node,
  type RunningAgent,
  resultOf,
} from './nodelab.ts'

export const versions = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0']
export const RELEASED = { code: 0, stdout: '' }
export const silent = ({ code, stdout }: { code: number | null; stdout: string }) => ({ code, stdout })
let containers = 0

export const v4 = [{ subnet: '10.10.10.0/24', rangeStart: '10.10.10.19', rangeEnd: '10.10.10.199' }]
export const v6 = [{ subnet: 'fd00:10::/64', rangeStart: 'fd00:10::19' }]
export const dualStack = (node: Node) => ({
  type: 'host-local',
  dataDir: node.leases,
  ranges: [v4, v6],
  routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
})
/** No second default route. */
export const without0 = (node: Node) => ({ type: 'host-local', dataDir: node.leases, ranges: [v4] })
export const secondSubnet = (node: Node) => ({
  type: 'host-local',
  dataDir: node.leases,
  ranges: [[{ subnet: '10.20.0.0/24' }]],
})

/** A node, from before the tests of the calling suite until after them; each test cleans up behind itself. */
export function vethRouteLab(mode: Node['mode']) {
  let node: Node
  let agent: RunningAgent | undefined
  let kept: string[]

  before(async () => {
    node = makeLab({ mode }).nodes[0]!
    if (mode === 'agent') agent = await node.startAgent()
    await bringForGood()
    kept = node.state()
  })
  after(() => agent?.[Symbol.asyncDispose]())
  // So that a test that failed does not make the next ones fail.
  beforeEach(async () => {
    if (mode === 'agent' && agent === undefined) agent = await node.startAgent()
  })
  const made: [Attachment, CallOptions?][] = []
  afterEach(async context => {
    const mine = made.splice(0)
    if (!('passed' in context && context.passed)) for (const [it, options] of mine) await node.call('DEL', it, options)
  })
  /** What costs a second with a process per call, and is the same code. */
  const testByAgent = mode === 'agent' ? test : () => undefined

  /** What the first pods bring for good: 169.254.1.1, the table, settings. */
  async function bringForGood(): Promise<void> {
    const it = { containerId: 'first', netns: makeNetns('first').path }
    for (const ipMasq of [false, true]) {
      resultOf(await node.call('ADD', it, { more: { ipMasq, ipam: dualStack(node) } }))
      resultOf(await node.call('DEL', it, { more: { ipMasq, ipam: dualStack(node) } }))
    }
  }

  /** A container that does not exist yet, with a namespace of its own. */
  const newPod = (more: Partial<Attachment> = {}): { pod: Netns; it: Attachment } => {
    const pod = makeNetns('pod')
    const it = { containerId: `c${containers++}`, netns: pod.path, ...more }
    made.push([it])
    return { pod, it }
  }
  const assertNothingLeft = () => assertSameState(node.state(), kept)

  /** A container whose addresses come from a script that writes down how it is called. */
  function withFakeIpam(answer: object | undefined, del = '') {
    const directory = folder('fake')
    const log = join(directory, 'calls')
    const file = join(directory, 'fake-ipam')
    const failing = `echo '{"code": 11, "msg": "no", "details": "later"}'; exit 1`
    const add = answer === undefined ? failing : `echo '${JSON.stringify({ cniVersion: '1.1.0', ...answer })}'`
    const script = (onDel: string) =>
      `#!/bin/sh\necho $CNI_COMMAND >> ${log}\ncase $CNI_COMMAND in ADD) ${add};; DEL) ${onDel === '' ? ':' : failing};; esac\n`
    writeFileSync(file, script(del), { mode: 0o755 })
    const { pod, it } = newPod()
    return {
      pod,
      it,
      ipam: {
        more: { cniVersion: '1.1.0', ipam: { type: 'fake-ipam' } },
        env: { CNI_PATH: `${directory}:${cniBin()}` },
      },
      calls: () => readFileSync(log, 'utf8').trim().split('\n'),
      repair: () => writeFileSync(file, script(''), { mode: 0o755 }),
    }
  }

  /** The journal, lost. An agent is stopped meanwhile. */
  async function forgetEverything(): Promise<void> {
    await agent?.kill('SIGTERM')
    agent = undefined
    for (const suffix of ['', '-wal', '-shm']) rmSync(join(node.dataDir, `journal.db${suffix}`), { force: true })
    if (mode === 'agent') agent = await node.startAgent()
  }

  return {
    get node() {
      return node
    },
    get kept() {
      return kept
    },
    ...{ testByAgent, bringForGood, newPod, assertNothingLeft, withFakeIpam, forgetEverything },
  }
}
