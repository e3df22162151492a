// SPDX-License-Identifier: Apache-2.0

import { hostPrefix, isV4, networkOf, type Prefix, tryParseIp, tryParsePrefix } from '#base'
import type { Condition } from '#host'

/** Whose language conditions are in; undefined for none. Words of iptables begin with a hyphen or stand behind `!`. */
export function styleOf(conditions: readonly string[] | undefined): 'iptables' | 'nftables' | undefined {
  const first = conditions?.[0] ?? ''
  if (first === '') return undefined
  return first.startsWith('-') || first.startsWith('!') ? 'iptables' : 'nftables'
}

const options: Readonly<Record<string, Condition['end']>> = {
  ...{ '-s': 'source', '--source': 'source', '--src': 'source' },
  ...{ '-d': 'destination', '--destination': 'destination', '--dst': 'destination' },
}
const fields: Readonly<Record<string, Condition['end']>> = { saddr: 'source', daddr: 'destination' }

/** Reads conditions of either language. @returns what is not understood, in words, where something is not */
export function parseConditions(version: 'v4' | 'v6', given: readonly string[]): Condition[] | string {
  const words = given.flatMap(text => text.split(/\s+/)).filter(word => word !== '')
  const style = styleOf(words)
  const found: Condition[] = []
  for (let rest = words; rest.length > 0; ) {
    const condition = style === 'iptables' ? fromIptables(rest) : fromNft(version, rest)
    if (condition === undefined) return `"${rest.join(' ')}" is not understood`
    const network = networkIn(version, condition.text)
    if (network === undefined) return `"${condition.text}" is no network of IP${version}`
    found.push({ end: condition.end, negated: condition.negated, network })
    rest = rest.slice(condition.words)
  }
  return found
}

type Read = { end: Condition['end']; negated: boolean; text: string; words: number }

/** `-s NETWORK`, `! -d NETWORK`. */
function fromIptables(words: readonly string[]): Read | undefined {
  const negated = words[0] === '!'
  const [option, text] = words.slice(negated ? 1 : 0)
  const end = options[option ?? '']
  return end === undefined || text === undefined ? undefined : { end, negated, text, words: negated ? 3 : 2 }
}

/** `ip saddr NETWORK`, `ip6 daddr != NETWORK`. */
function fromNft(version: 'v4' | 'v6', words: readonly string[]): Read | undefined {
  const [family, field, ...after] = words
  const hasOperator = after[0] === '==' || after[0] === '!='
  const text = after[hasOperator ? 1 : 0]
  const end = fields[field ?? '']
  if (family !== (version === 'v4' ? 'ip' : 'ip6') || end === undefined || text === undefined) return undefined
  return { end, negated: after[0] === '!=', text, words: hasOperator ? 4 : 3 }
}

function networkIn(version: 'v4' | 'v6', text: string): Prefix | undefined {
  const ip = tryParseIp(text)
  const prefix = ip === undefined ? tryParsePrefix(text) : hostPrefix(ip)
  return prefix !== undefined && isV4(prefix.ip) === (version === 'v4') ? networkOf(prefix) : undefined
}
