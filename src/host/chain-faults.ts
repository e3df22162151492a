// SPDX-License-Identifier: Apache-2.0

import type { Transport } from '#netlink'
import { type ChainState, formatChain, getChains, isSameRule, listRules, policies, type Rule } from '#nftables'
import { type ChainRule, fingerprint, type Part } from './part.ts'

/** The same for the chains of a part. @param more rules that are wanted beside those of the part, wherever in their chain */
export const partFaults = (transport: Transport, part: Part, more: readonly ChainRule[] = []): string[] =>
  chainFaults(transport, part.chains, { more, comment: fingerprint(part) })

/**
 * What of chains is not as it was made, in words; none: all is well. A base chain has the rules that it was made with and no
 * others; a regular one may have more, as different nodes need them.
 * @param comment of base chains, where it tells which release made them: what another one wrote is not known here
 * @throws {NetlinkError}
 */
export function chainFaults(
  transport: Transport,
  chains: Part['chains'],
  { more = [], comment }: { more?: readonly ChainRule[]; comment?: string } = {},
): string[] {
  const states = getChains(
    transport,
    chains.map(({ chain }) => chain),
  )
  const isKnown = chains.every(({ chain }, index) => chain.base === undefined || states[index]?.comment === comment)
  return chains.flatMap(({ chain, rules }, index) => {
    const name = formatChain(chain)
    const state = states[index]
    const found = state === undefined ? [] : listRules(transport, chain)
    if (state === undefined || found.length < rules.length) return [`the rules of chain ${name} are not there`]
    if (!isKnown) return []
    const besides = more.filter(({ chain: { name } }) => name === chain.name).map(({ rule }) => rule)
    return chain.base === undefined
      ? missingIn(found, rules, besides).map(text => `${text} of chain ${name} is not there, or another one`)
      : [...policyFaults(state, chain.base.policy), ...differences(found, rules)].map(
          text => `chain ${name} has ${text}`,
        )
  })
}

function policyFaults({ policy }: ChainState, wanted: keyof typeof policies): string[] {
  return policy === undefined || policy === policies[wanted] ? [] : [`another policy than ${wanted}`]
}

function differences(found: readonly Rule[], wanted: readonly Rule[]): string[] {
  const other = wanted.findIndex((rule, index) => !isSameRule(found[index]!, rule))
  if (other >= 0) return [`another rule than ${nameOf(wanted, other)}`]
  return found.length === wanted.length ? [] : ['more rules than it was made with']
}

/** In order, with others between them; `besides` anywhere. */
function missingIn(found: readonly Rule[], wanted: readonly Rule[], besides: readonly Rule[]): string[] {
  let from = 0
  for (const [index, rule] of wanted.entries()) {
    const at = found.slice(from).findIndex(each => isSameRule(each, rule))
    if (at < 0) return [nameOf(wanted, index)]
    from += at + 1
  }
  return besides.every(rule => found.some(each => isSameRule(each, rule))) ? [] : ['a rule for the pod']
}

const nameOf = (rules: readonly Rule[], index: number): string => {
  const { comment } = rules[index]!
  return `rule ${index + 1}${comment === undefined ? '' : ` ("${comment}")`}`
}
