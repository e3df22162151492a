// SPDX-License-Identifier: Apache-2.0

/** Parses `aa:bb:cc:dd:ee:ff` (or with `-`, any case) into 6 bytes. Undefined if it is none. */
export function tryParseMac(text: string): Uint8Array | undefined {
  if (!/^[0-9a-f]{2}([:-][0-9a-f]{2}){5}$/i.test(text)) return undefined
  return Uint8Array.from(text.split(/[:-]/), pair => Number.parseInt(pair, 16))
}

/** Lower-case, colon-separated. */
export const formatMac = (mac: Uint8Array): string => mac.toHex().replace(/..(?=.)/g, '$&:')

/** Six random bytes made a unicast, locally administered address (IEEE 802, second bit of the first byte). */
export function localMac(random: Uint8Array): Uint8Array {
  const mac = random.slice(0, 6)
  mac[0] = (mac[0]! & 0xfe) | 0x02
  return mac
}
