// SPDX-License-Identifier: Apache-2.0

// What the tests of an interface plugin share: a node on which the first pod came and went, pods, and what is left.

import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { after, afterEach, before, test } from 'node:test'
import {
  type Attachment,
  assertSameState,
  makeLab,
  makeNetns,
  type Netns,
  type Node,
  type NodeLab,
  type RunningAgent,
} from './nodelab.ts'
import { skipUnlessWhole } from './whole-run.ts'

export type SuiteNodeOptions = {
  readonly mode: Node['mode']
  /** Attaches and detaches what the first pods bring for good: tables, settings. */
  readonly bringForGood: (node: Node) => Promise<void>
  /** What counts as the node's state. @default all of it */
  readonly stateOf?: (node: Node) => string[]
}

/** `test` through an agent always, with a process per call in a whole run. */
export const testTwiceInWhole =
  (mode: Node['mode']) =>
  (name: string, run: () => Promise<void>): void =>
    void test(name, { skip: mode === 'standalone' && skipUnlessWhole }, run)

let containers = 0

/** A node, from before the tests of the calling suite until after them. What a test that failed attached is detached behind it. */
export function suiteNode({ mode, bringForGood, stateOf = node => node.state() }: SuiteNodeOptions) {
  let lab: NodeLab
  let node: Node
  let agent: RunningAgent | undefined
  let kept: string[]
  const made: Attachment[] = []

  before(async () => {
    lab = makeLab({ mode })
    node = lab.nodes[0]!
    if (mode === 'agent') agent = await node.startAgent()
    await bringForGood(node)
    kept = stateOf(node)
  })
  after(() => agent?.[Symbol.asyncDispose]())
  afterEach(async context => {
    const mine = made.splice(0)
    if (!('passed' in context && context.passed)) for (const it of mine) await node.call('DEL', it)
  })

  return {
    get lab() {
      return lab
    },
    get node() {
      return node
    },
    /** There in mode `agent` alone. */
    get agent(): RunningAgent {
      return agent!
    },
    set agent(started: RunningAgent | undefined) {
      agent = started
    },
    get kept() {
      return kept
    },
    /** What is there now is no trace of a test. */
    keep() {
      kept = stateOf(node)
    },
    /** For what costs a second with a process per call, and is the same code. */
    testByAgent: mode === 'agent' ? test : () => undefined,
    /** For the same that need not be seen with a process per call each time: there in a whole run alone. */
    testTwiceInWhole: testTwiceInWhole(mode),
    bringForGood: () => bringForGood(node),
    /** A container that does not exist yet, with a namespace of its own. */
    newPod(more: Partial<Attachment> = {}): { pod: Netns; it: Attachment } {
      const pod = makeNetns('pod')
      const it = { containerId: `c${containers++}`, netns: pod.path, ...more }
      made.push(it)
      return { pod, it }
    },
    /** The journal, lost. An agent is stopped meanwhile. */
    async forgetEverything(): Promise<void> {
      await agent?.kill('SIGTERM')
      agent = undefined
      for (const suffix of ['', '-wal', '-shm']) rmSync(join(node.dataDir, `journal.db${suffix}`), { force: true })
      if (mode === 'agent') agent = await node.startAgent()
    },
    assertNothingLeft: (when = '') => assertSameState(stateOf(node), kept, when),
  }
}
