// SPDX-License-Identifier: Apache-2.0

import type { Journal } from '#allocator'
import { readBootId } from '#host'
import {
  ADOPTED_COOL_DOWN_MS,
  endQuarantine,
  formatLeases,
  formatPools,
  type Lease,
  listLeases,
  type NetworksOptions,
  type Reserved,
  readPluginConfigs,
  readPools,
  reserveAhead,
} from '#inspect'
import { bringCredentials, listWaitingForCredentials, settleByHand, type World } from '#plugins'
import { limitsOf, textOf } from './command.ts'
import { type NodeOptions, openNode } from './node.ts'

export type AddressOptions = { readonly dataDir: string }

export type ListOptions = AddressOptions & {
  readonly state: readonly string[]
  readonly network?: string | undefined
  readonly pod?: string | undefined
  readonly json: boolean
}

/** Of commands that ask the cloud: inline credentials stand in network lists alone. */
export type CloudOptions = NodeOptions & NetworksOptions & { readonly timeout: string }

export type Page = {
  readonly lines: readonly string[]
  /** What the user has to do something about. */
  readonly warnings: readonly string[]
  /** False where less was done than was asked for. */
  readonly complete: boolean
}

/** The node, with a journal. @throws {Error} where nothing was ever recorded there */
function openRecorded(options: NodeOptions): AsyncDisposable & { readonly journal: Journal; readonly world: World } {
  const node = openNode(options)
  const { journal, world } = node
  if (journal !== undefined && world !== undefined)
    return { journal, world, [Symbol.asyncDispose]: () => node[Symbol.asyncDispose]() }
  throw new Error(`Cannot look for addresses: there is no journal in ${options.dataDir}. Name the agent's --data-dir`)
}

/** What the journal knows of the addresses of Neutron on this node. */
export async function listAddresses(options: ListOptions): Promise<Page> {
  const { state, network, pod, json } = options
  await using node = openRecorded(options)
  const { journal } = node
  const waiting = listWaitingForCredentials(journal, readBootId())
  const isWaiting = ({ portId, address }: Lease) =>
    waiting.some(({ addresses }) => addresses.some(each => each.portId === portId && each.address === address))
  const isWanted = (lease: Lease) =>
    (state.length === 0 || state.includes(lease.state)) &&
    (network === undefined || lease.holder?.network === network) &&
    (pod === undefined || lease.holder?.pod === pod || lease.holder?.pod?.split('/')[1] === pod)
  const leases = listLeases(journal).filter(isWanted)
  const lines = json
    ? [
        JSON.stringify(
          leases.map(each => ({ ...each, waitsForCredentials: isWaiting(each) })),
          undefined,
          2,
        ),
      ]
    : formatLeases(leases, each => (isWaiting(each) ? 'waits for credentials' : undefined))
  const flaws = leases.flatMap(({ flaw }) => flaw ?? [])
  return { lines, warnings: [...waiting.map(({ text }) => text), ...new Set(flaws)], complete: true }
}

/** What could be given: on this node at once, and of its subnets in Neutron. */
export async function showFree(options: CloudOptions & { readonly json: boolean }): Promise<Page> {
  const limits = limitsOf(options.timeout, 'look for free addresses')
  await using node = openRecorded(options)
  const warnings: string[] = []
  await bringAll(node.world, options, text => warnings.push(text))
  const { pools, quotas } = await readPools(node.journal, node.world.clouds, limits, text => warnings.push(text))
  const lines = options.json ? [JSON.stringify({ pools, quotas }, undefined, 2)] : formatPools(pools, quotas)
  return { lines, warnings: [...new Set(warnings)], complete: true }
}

export type ReserveArguments = CloudOptions & {
  readonly pool?: string | undefined
  /** Minutes. */
  readonly for: string
}

const RESERVE_MAX = 256
const MINUTES_MAX = 7 * 24 * 60

/** Makes a larger reserve now, for a time. */
export async function makeReserve(text: string, options: ReserveArguments): Promise<Page> {
  const count = wholeNumber(text, RESERVE_MAX, 'Cannot make a reserve: the number of addresses')
  const minutes = wholeNumber(options.for, MINUTES_MAX, 'Cannot make a reserve: --for', 1)
  const limits = limitsOf(options.timeout, 'make a reserve')
  await using node = openRecorded(options)
  const warnings: string[] = []
  await bringAll(node.world, options, message => warnings.push(message))
  const untilMs = Date.now() + minutes * 60_000
  const done = await reserveAhead(node.world, { count, untilMs, pool: options.pool }, limits)
  const until = count === 0 ? '' : `, kept until ${new Date(untilMs).toISOString()}`
  const failed = done.flatMap(({ error }) => (error === undefined ? [] : [textOf(error)]))
  if (failed.length > 0)
    failed.push('It is recorded all the same, and tried with the next change. Inline credentials: --conflist FILE')
  return {
    lines: done.flatMap(each => reservedLines(each, until)),
    warnings: [...new Set([...warnings, ...failed])],
    complete: done.every(({ error }) => error === undefined),
  }
}

const reservedLines = ({ name, free }: Reserved, until: string): string[] =>
  Object.entries(free).map(([subnet, count]) => `${name}: ${count} free${subnet && ` of subnet ${subnet}`}${until}`)

/**
 * Ends the quarantine of an address or of a whole port: `adopt` takes it for ours and nobody's, `release` takes it away.
 * @returns lines for the user @throws {Error} where it is not in quarantine
 */
export async function decide(
  verb: 'adopt' | 'release',
  text: string,
  options: CloudOptions & { readonly port?: string | undefined },
): Promise<Page> {
  const limits = limitsOf(options.timeout, `${verb} ${text}`)
  await using node = openRecorded(options)
  const lease = endQuarantine(node.journal, verb, text, options.port)
  const { address, portId, mark } = lease
  const what = mark === null ? address! : `port ${portId}`
  if (verb === 'adopt') {
    const where = mark === null ? `in the reserve of port ${portId}` : 'in the reserve'
    const line = `${what} is ${where}, and can be a pod's in ${ADOPTED_COOL_DOWN_MS / 1000} s`
    return { lines: [line], warnings: [], complete: true }
  }
  const warnings: string[] = []
  await bringAll(node.world, options, message => warnings.push(message))
  const error = await settleByHand(node.world, lease.pool ?? portId, limits).catch((thrown: unknown) => thrown)
  const place = mark === null ? `off port ${portId}` : 'out of the cloud'
  const state = stateOf(node.journal, lease)
  if (state === undefined) return { lines: [`${what} is ${place}`], warnings, complete: true }
  if (state === 'free')
    return {
      lines: [`${what} is in the reserve, which was too small without it or keeps its block whole`],
      warnings,
      complete: true,
    }
  // It is recorded: whoever comes next does it.
  const next = mark === null ? 'the next change of the port, or with mooring drain' : 'the next change of its pool'
  if (error !== undefined) warnings.push(textOf(error))
  return { lines: [`${what} goes ${place} with ${next}`], warnings, complete: true }
}

const stateOf = (journal: Journal, { portId, mark, address }: Lease): Lease['state'] | undefined =>
  listLeases(journal).find(each => each.portId === portId && each.mark === mark && each.address === address)?.state

async function bringAll({ clouds }: World, options: CloudOptions, warn: (text: string) => void): Promise<void> {
  for (const { file, config } of readPluginConfigs(options, warn))
    try {
      await bringCredentials(clouds, config)
    } catch (error) {
      if (options.conflist !== undefined) throw new Error(`${file}: ${textOf(error)}`, { cause: error })
      warn(`${file}: ${textOf(error)}`)
    }
}

function wholeNumber(text: string, max: number, what: string, min = 0): number {
  const value = Number(text)
  if (/^\d+$/.test(text) && value >= min && value <= max) return value
  throw new Error(`${what} is "${text}", want ${min} to ${max}`)
}
