// SPDX-License-Identifier: Apache-2.0

// What a schedule happens in: a cloud, a kernel and a node of its own, and the pods as their runtime knows them.

import { tryParseMac } from '#base'
import { type CloudSession, cloudFromConf, openCloud } from '#openstack'
import { find, type Simulator, startSimulator } from '#simulator'
import type { Kernel } from './kernel.ts'
import type { Mode } from './mode.ts'
import { type Node, type Sandbox, startNode } from './node.ts'
import type { Schedule } from './schedule.ts'

export type Pod = {
  readonly containerId: string
  sandbox: Sandbox | undefined
  /** What its ADD gave, until somebody begins to take it away. */
  addresses: readonly string[] | undefined
  /** When that was (ms since 1970). */
  addedMs: number
  /** GCs so far that did not know it. */
  condemned: number
  /** DELs that were begun so far. */
  dels: number
  /** Calls under way. */
  running: number
}

export type World = AsyncDisposable & {
  readonly schedule: Schedule
  readonly mode: Mode
  readonly node: Node
  readonly kernel: Kernel
  readonly simulator: Simulator
  readonly operator: CloudSession
  readonly pods: Map<number, Pod>
  /** The lists of GCs under way. */
  readonly lists: Set<readonly Pod[]>
  /** Addresses that an operator put on the port, and those that he took from pods. */
  readonly foreign: Set<string>
  readonly taken: Set<string>
  /** Paths of namespaces that went without a word of their runtime. */
  readonly forgotten: Set<string>
  readonly warnings: string[]
  readonly startedMs: number
  boots: number
}

export async function startWorld(schedule: Schedule, { mode, real }: { mode: Mode; real: boolean }): Promise<World> {
  const stack = new AsyncDisposableStack()
  const simulator = stack.use(await startSimulator({ servers: 1, ...mode.cloud?.(schedule) }))
  const { servers, subnet_id } = simulator.demo()
  const mac = tryParseMac(servers['worker-1']!.ports[0]!.mac)!
  const pool = { start: '10.10.10.20', end: `10.10.10.${19 + schedule.addresses}` }
  Object.assign(find(simulator.state, 'subnets', subnet_id)!, { allocation_pools: [pool] })
  const { username, password } = simulator.accounts.admin
  const { project } = simulator.accounts.demo
  const conf = { username, password, project, domain: 'default', authUrl: simulator.authUrl }
  const operator = openCloud(cloudFromConf(conf))
  stack.defer(() => operator.close())
  await mode.prepare?.(operator)
  const kernel = stack.use(mode.kernels[real ? 'real' : 'fake']({ mac, simulator, seed: schedule.seed }))
  const warnings: string[] = []
  const node = stack.use(await startNode(schedule, { simulator, kernel, mode, warn: text => warnings.push(text) }))
  const [pods, foreign, taken] = [new Map<number, Pod>(), new Set<string>(), new Set<string>()]
  stack.defer(() => {
    for (const { sandbox } of pods.values()) sandbox?.remove()
  })
  const dispose = () => stack.disposeAsync()
  return {
    ...{
      schedule,
      mode,
      node,
      kernel,
      simulator,
      operator,
      pods,
      foreign,
      taken,
      forgotten: new Set<string>(),
      warnings,
      startedMs: performance.now(),
      boots: 1,
      lists: new Set<readonly Pod[]>(),
    },
    [Symbol.asyncDispose]: dispose,
  }
}

/** True for a pod that a GC under way does not know: it may be gone at any moment. */
export const isCondemned = ({ lists }: World, pod: Pod): boolean => [...lists].some(list => !list.includes(pod))

/** The pod of a number, with a namespace. */
export function podOf({ pods, node }: World, number: number): Pod & { sandbox: Sandbox } {
  const containerId = `pod${number}`
  const pod = pods.get(number) ?? {
    containerId,
    sandbox: undefined,
    addresses: undefined,
    addedMs: 0,
    condemned: 0,
    dels: 0,
    running: 0,
  }
  pods.set(number, pod)
  pod.sandbox ??= node.makeSandbox(containerId)
  return pod as Pod & { sandbox: Sandbox }
}

/** Ends every fault that was not met yet, and waits for what the cloud still works on. */
export async function heal({ simulator, kernel }: World): Promise<void> {
  kernel.heal?.()
  await fetch(`${simulator.url}/simulator/inject`, { method: 'DELETE' })
  await new Promise(resolve => setTimeout(resolve, DELAY_MS_MAX))
}

/**
 * Time that this thread had, in its own work and waiting: what a busy machine gives to others does not count, and the
 * schedules beside this one do.
 */
export function ownTimeMs(): number {
  const { user, system } = process.threadCpuUsage()
  return performance.eventLoopUtilization().idle + (user + system) / 1000
}

/** The longest that a fault of a schedule holds a request back, and what the cloud itself takes. */
const DELAY_MS_MAX = 180

/** Makes everything that is recorded older. */
export function passTime({ node: { journal } }: World, seconds: number): void {
  journal.transaction(() => {
    const tables = journal.sql("SELECT name FROM sqlite_schema WHERE type = 'table'").all()
    for (const { name } of tables as { name: string }[])
      for (const { name: column } of journal.sql(`PRAGMA table_info("${name}")`).all() as { name: string }[])
        if (column.endsWith('_ms'))
          journal.sql(`UPDATE "${name}" SET "${column}" = max(0, "${column}" - ?)`).run(seconds * 1000)
  })
}
