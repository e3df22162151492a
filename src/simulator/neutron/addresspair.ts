// SPDX-License-Identifier: Apache-2.0
import { tryParseIp, tryParsePrefix } from '#base'
import { asObject, type Call } from '../call.ts'
import { badRequest, Fault } from '../fault.ts'
import type { AddressPair } from '../state.ts'
import { type Convert, python } from './attribute.ts'

/** Checks the shape of `allowed_address_pairs`; a missing MAC stays empty until the port's is known. */
export const addressPairs: Convert = value => {
  if (value === null) return []
  if (!Array.isArray(value)) throw badRequest('Allowed address pairs must be a list.')
  const seen = new Set<string>()
  return value.map((entry): AddressPair => {
    const pair = asObject(entry) ?? {}
    const { ip_address: ip, mac_address: mac } = pair
    if (ip === undefined) {
      throw new Fault(400, 'AllowedAddressPairsMissingIP', 'AllowedAddressPair must contain ip_address')
    }
    const unknown = Object.keys(pair).filter(key => key !== 'ip_address' && key !== 'mac_address')
    if (unknown.length > 0) throw badRequest(`Unrecognized attribute(s) '${unknown.join(', ')}'`)
    if (typeof ip !== 'string' || (tryParseIp(ip) ?? tryParsePrefix(ip)) === undefined) {
      throw badRequest(`${python(ip)} is not a valid IP address`)
    }
    const text = typeof mac === 'string' ? mac : ''
    const key = `${text} ${ip}`
    if (seen.has(key)) {
      throw new Fault(
        400,
        'DuplicateAddressPairInRequest',
        `Request contains duplicate address pair: mac_address ${text === '' ? 'None' : text} ip_address ${ip}.`,
      )
    }
    seen.add(key)
    return { mac_address: text, ip_address: ip }
  })
}

/** Neutron removes the rows that it saw and inserts all of the request: one that another write has inserted meanwhile is in the way. */
export function checkAddedMeanwhile(
  pairs: readonly AddressPair[],
  read: { readonly allowed_address_pairs: readonly AddressPair[] },
  now: { readonly allowed_address_pairs: readonly AddressPair[] },
): void {
  const keyOf = (pair: AddressPair) => `mac_address ${pair.mac_address} ip_address ${pair.ip_address}`
  const before = new Set(read.allowed_address_pairs.map(keyOf))
  const inTheWay = new Set(now.allowed_address_pairs.map(keyOf).filter(each => !before.has(each)))
  const first = pairs.map(keyOf).find(each => inTheWay.has(each))
  if (first !== undefined)
    throw new Fault(400, 'DuplicateAddressPairInRequest', `Request contains duplicate address pair: ${first}`)
}

/** The pairs with the port's MAC where none was given, in the order in which answers show them. */
export function completePairs(call: Call, pairs: readonly AddressPair[], mac: string): AddressPair[] {
  const { maxAddressPairs } = call.state.settings
  if (pairs.length > maxAddressPairs) {
    throw new Fault(
      400,
      'AllowedAddressPairExhausted',
      `The number of allowed address pair exceeds the maximum ${maxAddressPairs}.`,
    )
  }
  const key = (pair: AddressPair): string => `${pair.mac_address} ${pair.ip_address}`
  return pairs
    .map(pair => ({ mac_address: pair.mac_address === '' ? mac : pair.mac_address, ip_address: pair.ip_address }))
    .sort((a, b) => (key(a) < key(b) ? -1 : 1))
}
