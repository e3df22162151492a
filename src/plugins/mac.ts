// SPDX-License-Identifier: Apache-2.0

import { tryParseMac } from '#base'
import { CniError, codes } from '#cni'

/**
 * The MAC that a pod's interface was asked to have: the first that was given at all.
 * @throws {CniError} 7 where no link can have it
 */
export function wantedMac(...texts: readonly (string | undefined)[]): Uint8Array | undefined {
  const text = texts.find(each => each !== undefined && each !== '')
  if (text === undefined) return undefined
  const mac = tryParseMac(text)
  if (mac === undefined)
    throw new CniError(codes.invalidConfig, `invalid args ${text} for MAC addr: want aa:bb:cc:dd:ee:ff`)
  if ((mac[0]! & 1) !== 0 || mac.every(byte => byte === 0))
    throw new CniError(codes.invalidConfig, `invalid args ${text} for MAC addr: no link can have it`, {
      details: 'the first byte of a unicast address is even',
    })
  return mac
}
