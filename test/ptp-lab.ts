// SPDX-License-Identifier: Apache-2.0

// What the tests of ptp share: a node on which the first pod came and went, pods, and what is left.

import assert from 'node:assert/strict'
import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, afterEach, before, test } from 'node:test'
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
  type NodeLab,
  type Outcome,
  type RunningAgent,
  resultOf,
} from './nodelab.ts'

export const DONE = { code: 0, stdout: '' }
export const silent = ({ code, stdout }: Outcome) => ({ code, stdout })
export const V4 = [{ subnet: '10.6.0.0/24' }]
export const V6 = [{ subnet: 'fd00:6::/64' }]
export const DEFAULTS = [{ dst: '0.0.0.0/0' }, { dst: '::/0' }]
let containers = 0

/** A node, from before the tests of the calling suite until after them; each test cleans up behind itself. */
export function ptpLab(mode: Node['mode']) {
  let lab: NodeLab
  let node: Node
  let agent: RunningAgent | undefined
  let kept: string[]
  const made: [Attachment, CallOptions?][] = []

  before(async () => {
    lab = makeLab({ mode })
    node = lab.nodes[0]!
    if (mode === 'agent') agent = await node.startAgent()
    await bringForGood()
    kept = node.state()
  })
  after(() => agent?.[Symbol.asyncDispose]())
  afterEach(async context => {
    const mine = made.splice(0)
    if (!('passed' in context && context.passed)) for (const [it, options] of mine) await node.call('DEL', it, options)
  })
  const testByAgent = mode === 'agent' ? test : () => undefined

  const config = (ipam: object = {}, more: object = {}) => ({
    cniVersion: '1.1.0',
    name: 'ptpnet',
    type: 'ptp',
    ipam: { type: 'host-local', dataDir: node.leases, ranges: [V4, V6], routes: DEFAULTS, ...ipam },
    ...more,
  })
  const staticIps = (addresses: object[], more: object = {}) => config({ type: 'static', addresses, ...more })

  /** A container that does not exist yet, with a namespace of its own. */
  const newPod = (of: object = config(), more: Partial<Attachment> = {}): { pod: Netns; it: Attachment } => {
    const pod = makeNetns('pod')
    const it = { containerId: `c${containers++}`, netns: pod.path, type: 'ptp', config: of, ...more }
    made.push([it])
    return { pod, it }
  }
  const assertNothingLeft = (when = '') => assertSameState(node.state(), kept, when)
  const add = async (it: Attachment, options?: CallOptions) => resultOf(await node.call('ADD', it, options))
  const del = async (it: Attachment, options?: CallOptions) =>
    assert.deepEqual(silent(await node.call('DEL', it, options)), DONE)

  /** What the first pods bring for good: table, settings. */
  async function bringForGood(): Promise<void> {
    const { it } = newPod(config({}, { ipMasq: true }))
    await add(it)
    await del(it)
  }

  /** A container whose addresses come from a script that writes down how it is called. */
  function withFakeIpam(answer: object | undefined, del: 'fail' | '' = '') {
    const directory = folder('fake')
    const [log, file] = [join(directory, 'calls'), join(directory, 'fake-ipam')]
    const failing = `echo '{"code": 11, "msg": "no", "details": "later"}'; exit 1`
    const onAdd = answer === undefined ? failing : `echo '${JSON.stringify({ cniVersion: '1.1.0', ...answer })}'`
    const write = (onDel: string) =>
      writeFileSync(
        file,
        `#!/bin/sh\necho $CNI_COMMAND >> ${log}\ncase $CNI_COMMAND in ADD) ${onAdd};; DEL) ${onDel};; esac\n`,
      )
    write(del === 'fail' ? failing : ':')
    chmodSync(file, 0o755)
    const { pod, it } = newPod(config({ type: 'fake-ipam' }))
    return {
      ...{ pod, it },
      options: { env: { CNI_PATH: `${directory}:${cniBin()}` } },
      calls: () => readFileSync(log, 'utf8').trim().split('\n'),
      repair: () => write(':'),
    }
  }

  return {
    get lab() {
      return lab
    },
    get node() {
      return node
    },
    get agent() {
      return agent
    },
    set agent(started) {
      agent = started
    },
    get kept() {
      return kept
    },
    ...{ testByAgent, bringForGood, config, staticIps, newPod, assertNothingLeft, add, del, withFakeIpam },
  }
}
