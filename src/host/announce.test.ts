// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseIp, tryParseMac } from '#base'
import { arpAnnouncement, neighbourAdvertisement } from './announce.ts'

const golden = (...lines: string[]) => lines.join('').replaceAll(' ', '')
const mac = tryParseMac('02:00:00:00:00:05')!

test('arpAnnouncement: is the request of RFC 5227, with the address as sender and as target', () => {
  const bytes = golden(
    '0001', // Ethernet
    '0800', // IPv4
    '06 04', // lengths of the addresses
    '0001', // request
    '020000000005', // sender's MAC
    '0a000005', // sender's address
    '000000000000', // target's MAC
    '0a000005', // target's address
  )
  assert.equal(arpAnnouncement(parseIp('10.0.0.5'), mac).toHex(), bytes)
})

test('neighbourAdvertisement: is unsolicited, overrides, and has hop limit 255 and a checksum that is right', () => {
  const bytes = golden(
    '60000000', // version 6
    '0020 3a ff', // 32 bytes of ICMPv6, hop limit 255
    'fd000000000000000000000000000005', // from the address itself
    'ff020000000000000000000000000001', // to all nodes
    '88 00 5a8f', // neighbour advertisement, checksum
    '20000000', // override
    'fd000000000000000000000000000005', // target
    '02 01 020000000005', // target's link-layer address
  )
  const packet = neighbourAdvertisement(parseIp('fd00::5'), mac)
  assert.equal(packet.toHex(), bytes)
  assert.equal(sumOf(packet), 0xffff)
})

/** RFC 4443, section 2.3: over pseudo header and message, with its checksum, all ones come out. */
function sumOf(packet: Uint8Array): number {
  const pseudo = [...packet.subarray(8, 40), 0, 0, 0, packet.length - 40, 0, 0, 0, 58]
  const all = [...pseudo, ...packet.subarray(40)]
  let sum = 0
  for (let index = 0; index < all.length; index += 2) sum += all[index]! * 256 + all[index + 1]!
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return sum
}
