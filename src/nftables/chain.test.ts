// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addChain, chainAttributes, deleteChain, getChains, listChains } from './chain.ts'

// Bytes captured from nft 1.0.6 (strace of its sendmsg), from the family header on, one attribute per line.
const golden = (...lines: string[]) => Uint8Array.fromHex(lines.join(''))
const table = { family: 'inet', name: 'mooring' } as const

test('addChain: writes a regular chain as nft does', () => {
  // nft 'add chain inet mooring c'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_CHAIN_TABLE mooring
    '0600030063000000', // NFTA_CHAIN_NAME
  )
  const change = addChain({ table, name: 'c' })
  assert.deepEqual(change.body, bytes)
  assert.equal(change.flags, 0x400)
  assert.equal(addChain({ table, name: 'c' }, { exclusive: true }).flags, 0x600)
})

test('addChain: writes a base chain with comment as nft does', () => {
  // nft 'add chain inet mooring b { type filter hook prerouting priority raw; policy drop; comment "v1"; }'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_CHAIN_TABLE mooring
    '0600030062000000', // NFTA_CHAIN_NAME
    '0b00070066696c7465720000', // NFTA_CHAIN_TYPE filter
    '0800050000000000', // NFTA_CHAIN_POLICY 0x0
    '14000480', // NFTA_CHAIN_HOOK
    '0800010000000000', //   NFTA_HOOK_HOOKNUM 0x0
    '08000200fffffed4', //   NFTA_HOOK_PRIORITY 0xfffffed4
    '09000c000003763100000000', // NFTA_CHAIN_USERDATA
  )
  const base = { type: 'filter', hook: 'prerouting', priority: -300, policy: 'drop' } as const
  const change = addChain({ table, name: 'b', base, comment: 'v1' })
  assert.deepEqual(change.body, bytes)
  assert.deepEqual(chainAttributes.encode(chainAttributes.decode(bytes.subarray(4))), bytes.subarray(4))
})

test('addChain: writes the link of an ingress chain as nft does', () => {
  // nft 'add chain netdev mooring c { type filter hook ingress device "v1" priority 0; policy accept; }'
  const bytes = golden(
    '05000000', // nfgenmsg: netdev
    '0c0001006d6f6f72696e6700', // NFTA_CHAIN_TABLE mooring
    '0600030063000000', // NFTA_CHAIN_NAME
    '0b00070066696c7465720000', // NFTA_CHAIN_TYPE filter
    '0800050000000001', // NFTA_CHAIN_POLICY 0x1
    '1c000480', // NFTA_CHAIN_HOOK
    '0800010000000000', //   NFTA_HOOK_HOOKNUM 0x0
    '0800020000000000', //   NFTA_HOOK_PRIORITY 0x0
    '0700030076310000', //   NFTA_HOOK_DEV v1
  )
  const base = { type: 'filter', hook: 'ingress', device: 'v1', priority: 0, policy: 'accept' } as const
  assert.deepEqual(addChain({ table: { family: 'netdev', name: 'mooring' }, name: 'c', base }).body, bytes)
})

test('deleteChain: writes what nft writes', () => {
  // nft 'delete chain inet mooring c'
  const bytes = golden(
    '01000000', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_CHAIN_TABLE mooring
    '0600030063000000', // NFTA_CHAIN_NAME
  )
  const change = deleteChain({ table, name: 'c' })
  assert.deepEqual(change.body, bytes)
})

test('getChains, listChains: decode hook, priority, policy, use and comment', () => {
  // Captured from the kernel's answer to `nft list chains`; the last two bytes of the header are of the generation.
  const bytes = golden(
    '01000004', // nfgenmsg: inet
    '0c0001006d6f6f72696e6700', // NFTA_CHAIN_TABLE mooring
    '0600030062000000', // NFTA_CHAIN_NAME b
    '0c0002000000000000000001', // NFTA_CHAIN_HANDLE 1
    '14000400', // NFTA_CHAIN_HOOK
    '0800010000000002', //   NFTA_HOOK_HOOKNUM forward
    '08000200fffffed4', //   NFTA_HOOK_PRIORITY -300
    '0800050000000000', // NFTA_CHAIN_POLICY drop
    '0b00070066696c7465720000', // NFTA_CHAIN_TYPE filter
    '08000a0000000001', // NFTA_CHAIN_FLAGS base
    '0800060000000001', // NFTA_CHAIN_USE 1
    '09000c000003763100000000', // NFTA_CHAIN_USERDATA v1
  )
  const messages = [{ type: 0x0a03, flags: 2, seq: 1, body: bytes }]
  const transport = { execute: () => [{ messages, tolerated: undefined }] }
  const expected = {
    family: 'inet',
    table: 'mooring',
    name: 'b',
    type: 'filter',
    hook: 2,
    priority: -300,
    policy: 0,
    use: 1,
    comment: 'v1',
  }
  assert.deepEqual(listChains(transport), [expected])
  assert.deepEqual(getChains(transport, [{ table, name: 'b' }]), [expected])
  const absent = { execute: () => [{ messages: [], tolerated: 2 }] }
  assert.deepEqual(getChains(absent, [{ table, name: 'b' }]), [undefined])
})
