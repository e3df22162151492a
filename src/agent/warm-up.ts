// SPDX-License-Identifier: Apache-2.0

import { setImmediate as nextTurn } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import pino from 'pino'
import { memoryJournal } from '#allocator'
import { makeScratchNode, readBootId, SCRATCH_UPLINK } from '#host'
import { openSessions, worldOf } from '#plugins'
import { Calls } from './calls.ts'
import { createLanes } from './lanes.ts'

/** After so many V8 has compiled nearly all that an attachment needs. */
const ROUNDS = 8
const ATTACHMENTS_PER_ROUND = 25
const LONGEST_MS = 2_000
/**
 * V8 makes fast code of a function after so many calls; by default 400, which most functions of an attachment would reach long
 * after the warm-up, where pods wait for it.
 */
const CALLS_BEFORE_FAST_CODE = 100
const NOWHERE = '/nonexistent'

/** What a configuration has of its own. */
type Kind = { readonly type: string; readonly [key: string]: unknown }
const COMMON_KINDS: readonly Kind[] = [{ type: 'veth-route' }, { type: 'ptp' }]
const KINDS: readonly Kind[] = [
  ...COMMON_KINDS,
  { type: 'bridge', isGateway: true },
  { type: 'macvlan', master: SCRATCH_UPLINK },
]

/** Those that the node has used. Others may need a module of the kernel's that it does without. */
function kindsFor(used: readonly string[]): readonly Kind[] {
  const kinds = KINDS.filter(({ type }) => used.includes(type))
  return kinds.length > 0 ? kinds : COMMON_KINDS
}

/**
 * Attaches and detaches pods of nobody's, so that the first real ones do not wait for V8's compilers: a fresh agent needs
 * twice the time of one that has served a hundred. Everything happens in namespaces without names and in memory: however
 * the agent ends, nothing is left.
 *
 * Lets other work have its turn after each call.
 * @param used types of plugins that this node has used: they take turns, since most of what they do is the same
 * @throws {Error} where a call failed
 */
export async function warmUp(signal: AbortSignal, used: readonly string[] = []): Promise<void> {
  setFlagsFromString(`--invocation-count-for-maglev=${CALLS_BEFORE_FAST_CODE}`)
  using journal = memoryJournal()
  await using clouds = openSessions({ dataDir: NOWHERE, warn: () => {} })
  const kinds = kindsFor(used)
  const untilMs = performance.now() + LONGEST_MS
  for (let round = 0; round < ROUNDS && performance.now() < untilMs && !signal.aborted; round++) {
    // Links of earlier rounds would make the kernel slower; they go with their namespace, which nobody waits for.
    using node = makeScratchNode()
    const world = worldOf({
      host: node.host,
      journal,
      clouds,
      bootId: readBootId(),
      longLived: true,
      dataDir: NOWHERE,
    })
    const calls = new Calls(world, createLanes(), { logger: pino({ level: 'silent' }) })
    const kind = kinds[round % kinds.length]!
    for (let count = 0; count < ATTACHMENTS_PER_ROUND && !signal.aborted; count++)
      for (const command of ['ADD', 'DEL']) {
        const call = callOf(command, kind, count)
        const { exitCode, stdout } = await calls.serve({ ...call, netnsFd: node.podNetnsFd, signal })
        if (signal.aborted) return
        if (exitCode !== 0) throw new Error(`Cannot warm up: ${new TextDecoder().decode(stdout)}`)
        await nextTurn()
      }
  }
}

/** A pod with an interface of its own name: removing a link of an earlier one would take longer than all of this. */
function callOf(command: string, kind: Kind, count: number) {
  const ipam = { type: 'static', routes: [{ dst: '0.0.0.0/0' }] }
  const config = { cniVersion: '1.0.0', name: 'warm-up', ...kind, ipMasq: count % 2 === 0, ipam }
  const address = `IP=198.18.0.${count + 1}/16;GATEWAY=198.18.255.254`
  const env = {
    CNI_COMMAND: command,
    CNI_CONTAINERID: `warm-up-${count}`,
    CNI_NETNS: '/run/netns/warm-up',
    CNI_IFNAME: `eth${count}`,
    CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAMESPACE=warm-up;K8S_POD_NAME=warm-up;${address}`,
    CNI_PATH: NOWHERE,
  }
  return { type: kind.type, env, stdin: new TextEncoder().encode(JSON.stringify(config)) }
}
