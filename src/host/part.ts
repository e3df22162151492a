// SPDX-License-Identifier: Apache-2.0

import { sha256Hex } from '#base'
import { EEXIST } from '#libc'
import type { Transport } from '#netlink'
import {
  addChain,
  addRule,
  addSet,
  addTable,
  type Chain,
  type Change,
  commit,
  deleteChain,
  ERESTART,
  formatTable,
  getChains,
  type NamedSet,
  NftablesError,
  type Rule,
  readGeneration,
  type Table,
} from '#nftables'

/** Our table for what is routed; what is bridged has one of its own. */
export const table: Table = { family: 'inet', name: 'mooring' }

/**
 * Chains that are made, compared and renewed together: what one kind of plugin needs of the table. Regular chains stand
 * before those that lead to them. A set whose key or value changes gets another name: a set that is there is kept.
 */
export type Part = {
  readonly sets: readonly NamedSet[]
  readonly chains: readonly { readonly chain: Chain; readonly rules: readonly Rule[] }[]
}

/** A rule that stands in a chain beside those of its part. */
export type ChainRule = { readonly chain: Chain; readonly rule: Rule }

/** What somebody needs of a table; all parts are of the same. */
export type Wanted = {
  /** Made where they are missing, damaged or of another release. */
  readonly parts: readonly Part[]
  /** The same, but only where something of them is there. */
  readonly ifPresent?: readonly Part[]
  /** What else is missing, read from the kernel: sets and rules that differ from node to node. */
  readonly more?: FindMore
}

/** @param state parts that are made anew, names of chains that are there */
export type FindMore = (
  transport: Transport,
  state: { readonly renewed: readonly Part[]; readonly present: readonly string[] },
) => Change[]

/** Others may change the rule set while we make ours; each try is two messages. */
const TRIES_MAX = 32

/**
 * Makes what is missing of the table. Elements stay as they are. Harmless at any time and beside other processes; where
 * all is well it only reads.
 * @returns the parts that had to be made: whatever elements their sets had may be gone
 * @throws {NftablesError}
 */
export function ensureParts(transport: Transport, wanted: Wanted): readonly Part[] {
  for (let tries = 1; ; tries++) {
    const generation = readGeneration(transport)
    const { changes, renewed } = findMissing(transport, wanted)
    if (changes.length === 0) return []
    try {
      // Bound to what was read: an older release's chains must not be replaced by what was planned before a change.
      commit(transport, changes, { generation })
      if (renewed.length > 0) owing.add(transport)
      return renewed
    } catch (error) {
      const raced = error instanceof NftablesError && (error.errno === EEXIST || error.errno === ERESTART)
      if (!raced || tries === TRIES_MAX) throw error
    }
  }
}

/** Where parts were made: other attachments' elements may be missing there. */
const owing = new WeakSet<Transport>()

/**
 * True once after parts were made. Who made them for an attachment may have failed before the elements of the others were
 * put back; and where the parts are there, nothing else tells that these are missing.
 */
export const takeOwing = (transport: Transport): boolean => owing.delete(transport)

function findMissing(transport: Transport, { parts, ifPresent = [], more }: Wanted) {
  const chains = [...parts, ...ifPresent].flatMap(part => part.chains).map(({ chain }) => chain)
  const states = getChains(transport, chains).filter(state => state !== undefined)
  const present = states.map(state => state.name)
  const isCurrent = (part: Part) =>
    part.chains.every(({ chain, rules }) => {
      const state = states.find(({ name }) => name === chain.name)
      if (chain.base !== undefined) return state?.comment === fingerprint(part) && state.use === rules.length
      return state !== undefined && state.use >= useOf(part, chain, rules)
    })
  const isThere = (part: Part) => part.chains.some(({ chain }) => present.includes(chain.name))
  const renewed = [...parts, ...ifPresent.filter(isThere)].filter(part => !isCurrent(part))
  const changes = renewed.flatMap(part => makePart(part, present))
  const tables = new Map(
    renewed.flatMap(({ chains }) => chains).map(({ chain }) => [formatTable(chain.table), chain.table]),
  )
  changes.unshift(...tables.values().map(addTable))
  changes.push(...(more?.(transport, { renewed, present }) ?? []))
  return { changes, renewed }
}

/**
 * The kernel's use count of a chain: its rules and the jumps that lead to it. Nothing jumps to a base chain; a regular
 * one may have more rules than the part says (`Wanted.more`).
 */
function useOf(part: Part, chain: Chain, rules: readonly Rule[]): number {
  const verdicts = part.chains
    .flatMap(each => each.rules)
    .flatMap(rule => rule.expressions)
    .map(({ kind, data }: { kind: string; data?: unknown }) => (kind === 'immediate' ? (data as Immediate) : undefined))
  return rules.length + verdicts.filter(verdict => verdict?.data?.verdict?.chain === chain.name).length
}
type Immediate = { data?: { verdict?: { chain?: string } } }

const fingerprints = new WeakMap<Part, string>()

/** Says which rules a part has: another release's differ. Stands in the comment of each base chain. */
export function fingerprint(part: Part): string {
  const known = fingerprints.get(part)
  if (known !== undefined) return known
  const bodies = part.chains.flatMap(({ chain, rules }) => [
    addChain(chain).body,
    ...rules.map(rule => addRule(chain, rule).body),
  ])
  const text = `made by Mooring, rules ${sha256Hex(...bodies).slice(0, 8)}`
  fingerprints.set(part, text)
  return text
}

/** The part from scratch; elements of sets that are there stay. `present` are chains of an older release, replaced. */
export function makePart(part: Part, present: readonly string[]): Change[] {
  const old = part.chains.map(({ chain }) => chain).filter(chain => present.includes(chain.name))
  return [
    ...part.sets.map(set => addSet(set)),
    ...old.reverse().map(chain => deleteChain(chain)),
    // All chains first: a rule may lead to any of them. EXCL, so that of two processes one makes the rules.
    ...part.chains.map(({ chain }) =>
      addChain(chain.base === undefined ? chain : { ...chain, comment: fingerprint(part) }, { exclusive: true }),
    ),
    ...part.chains.flatMap(({ chain, rules }) => rules.map(rule => addRule(chain, rule))),
  ]
}
