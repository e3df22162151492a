// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseIp, tryParseMac } from '#base'
import { walk } from '#netlink'
import { AF_INET6 } from './address.ts'
import {
  addNeighbour,
  addProxy,
  decodeNeighbour,
  deleteProxy,
  dumpProxies,
  getNeighbour,
  NTF_PROXY,
} from './neighbour.ts'

// Bytes captured from ip of iproute2 6.1.0 (strace of its sendmsg) and from Linux 6.18's answers to it, without the
// netlink header, one attribute per line.
const golden = (...lines: string[]) => Uint8Array.fromHex(lines.join(''))
/** Header, and attributes in any order: `ip` has an order of its own. */
const partsOf = (body: Uint8Array) => [
  body.subarray(0, 12).toHex(),
  ...Array.from(walk(body.subarray(12)), ([type, payload]) => `${type} ${payload.toHex()}`).sort(),
]

test('addNeighbour: writes a permanent entry as ip does', () => {
  // ip neigh replace 169.254.1.1 lladdr 02:00:00:00:00:02 dev v1 nud permanent
  const bytes = golden(
    '020000000900000080000000', // ndmsg: AF_INET, link 9, NUD_PERMANENT
    '08000100a9fe0101', // NDA_DST
    '0a0002000200000000020000', // NDA_LLADDR
  )
  const mac = tryParseMac('02:00:00:00:00:02')!
  const { type, flags, body } = addNeighbour({ index: 9, address: parseIp('169.254.1.1'), mac })
  assert.deepEqual([type, flags | 1, body.toHex()], [28, 0x505, bytes.toHex()])
})

test('addProxy: writes a proxy entry as ip does, with the protocol that says whose it is', () => {
  // ip -6 neigh add proxy fd00::77 dev v1 protocol 98
  const bytes = golden(
    '0a0000000900000080000800', // ndmsg: AF_INET6, link 9, NUD_PERMANENT, NTF_PROXY
    '05000c0062000000', // NDA_PROTOCOL
    '14000100fd000000000000000000000000000077', // NDA_DST
  )
  const { type, flags, body } = addProxy({ index: 9, address: parseIp('fd00::77') })
  // ip asks to fail where there is one (0x605); ours may be there already.
  assert.deepEqual([type, flags | 1, partsOf(body)], [28, 0x505, partsOf(bytes)])
})

test('deleteProxy: writes what ip does, without the state that a removal does not need', () => {
  // ip neigh del proxy 10.0.0.77 dev v1
  const bytes = golden(
    '020000000900000000000800', // ndmsg: AF_INET, link 9, NTF_PROXY (ip: NUD_PERMANENT too)
    '080001000a00004d', // NDA_DST
  )
  const { type, flags, body } = deleteProxy({ index: 9, address: parseIp('10.0.0.77') })
  assert.deepEqual([type, flags | 1, body.toHex()], [29, 0x5, bytes.toHex()])
})

test('getNeighbour: asks for an entry, or a proxy entry, as ip does', () => {
  // ip neigh get proxy 10.0.0.77 dev v1
  const proxy = golden(
    '020000000300000000000800', // ndmsg: AF_INET, link 3, NTF_PROXY
    '080001000a00004d', // NDA_DST
  )
  const { type, flags, body } = getNeighbour({ index: 3, address: parseIp('10.0.0.77') }, { proxy: true })
  assert.deepEqual([type, flags | 1, body.toHex()], [30, 0x1, proxy.toHex()])
  // ip neigh get 169.254.1.1 dev v1
  const entry = golden(
    '020000000300000000000000', // ndmsg: AF_INET, link 3
    '08000100a9fe0101', // NDA_DST
  )
  assert.equal(getNeighbour({ index: 3, address: parseIp('169.254.1.1') }).body.toHex(), entry.toHex())
})

test('dumpProxies: asks as ip does, for one family', () => {
  // ip neigh show proxy
  const { type, flags, body } = dumpProxies(AF_INET6)
  assert.deepEqual([type, flags | 1, body.toHex()], [30, 0x301, '0a0000000000000000000800'])
})

test('decodeNeighbour: reads a proxy entry and its protocol', () => {
  const body = golden(
    '0a0000000900000000000801', // ndmsg
    '14000100fd000000000000000000000000000077', // NDA_DST
    '05000c0062000000', // NDA_PROTOCOL
  )
  const entry = decodeNeighbour({ type: 28, flags: 2, seq: 1, body })
  assert.deepEqual(entry, { index: 9, state: 0, flags: NTF_PROXY, address: parseIp('fd00::77'), protocol: 98 })
})

test('decodeNeighbour: reads an entry with its MAC', () => {
  const body = golden(
    '020000000900000080000002', // ndmsg
    '08000100a9fe0101', // NDA_DST
    '0a0002000200000000020000', // NDA_LLADDR
    '0800040000000000', // NDA_PROBES
    '1400030002000000040000000200000000000000', // NDA_CACHEINFO
  )
  const entry = decodeNeighbour({ type: 28, flags: 2, seq: 1, body })
  const mac = tryParseMac('02:00:00:00:00:02')!
  assert.deepEqual(entry, { index: 9, state: 0x80, flags: 0, address: parseIp('169.254.1.1'), mac })
})
