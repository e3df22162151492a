// SPDX-License-Identifier: Apache-2.0

import type { Expression } from './expressions/expression.ts'
import type { Rule } from './rule.ts'

/** What the kernel adds by itself: counts, and the end of a range that has but one value. */
const added: { readonly [kind: string]: readonly string[] } = {
  counter: ['bytes', 'packets'],
  nat: ['addressMax', 'portMax'],
}
/** linux/netfilter/nf_nat.h, NF_NAT_RANGE_MAP_IPS and NF_NAT_RANGE_PROTO_SPECIFIED: newer kernels set what follows from the registers. */
const NAT_FLAGS_THAT_FOLLOW = 0b11
const registers: readonly string[] = ['register', 'destination', 'source', 'address', 'port', 'link']

/** The kernel names a register of 4 bytes that begins one of 16 (NFT_REG32_00, _04, …) by the latter. */
const canonicalRegister = (register: number): number =>
  register >= 8 && register % 4 === 0 ? register / 4 - 1 : register

/**
 * True if a rule that the kernel describes does what another says. Comments may differ, and what is not said may not be there.
 */
export const isSameRule = (found: Rule, wanted: Rule): boolean =>
  found.expressions.length === wanted.expressions.length &&
  wanted.expressions.every((expression, index) => isSameExpression(found.expressions[index]!, expression))

function isSameExpression(found: Expression, wanted: Expression): boolean {
  if (found.kind !== wanted.kind) return false
  const [there, asked] = [valuesOf(found), valuesOf(wanted)]
  const names = new Set([...there.keys(), ...asked.keys()])
  return names.values().every(name => there.get(name) === asked.get(name))
}

/** What an expression says, as text by name; what is zero or empty says nothing. */
function valuesOf({ kind, ...rest }: Expression): Map<string, string> {
  const data = ('data' in rest ? rest.data : undefined) ?? {}
  const values = Object.entries(data)
    .filter(([name]) => !added[kind]?.includes(name))
    .map(([name, value]): [string, unknown] => {
      if (typeof value !== 'number') return [name, value]
      if (registers.includes(name)) return [name, canonicalRegister(value)]
      return [name, kind === 'nat' && name === 'flags' ? value & ~NAT_FLAGS_THAT_FOLLOW : value]
    })
    .filter(([, value]) => value !== undefined && value !== 0)
  return new Map(values.map(([name, value]) => [name, JSON.stringify(value, hexadecimal)]))
}

const hexadecimal = (_name: string, value: unknown) => (value instanceof Uint8Array ? value.toHex() : value)
