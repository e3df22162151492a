// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Request } from '#netlink'
import { chainAttributes, give } from '#nftables'
import { ensureParts, fingerprint, makePart, type Part, table } from './part.ts'
import { guard, nat } from './ruleset.ts'

test('makePart: sets, then old chains from the base chain down, then new chains before any rule', () => {
  const what = makePart(nat, ['outside_v4', 'postrouting', 'theirs']).map(change =>
    change.about.replace(/ inet mooring/, ''),
  )
  const chains = what.findIndex(about => about.startsWith('add chain'))
  assert.deepEqual(what.slice(0, chains), [
    'add set pod_links',
    'add set masquerade_v4',
    'add set masquerade_v6',
    'delete chain postrouting',
    'delete chain outside_v4',
  ])
  assert.deepEqual(what.slice(chains, chains + 3), [
    'add chain outside_v4',
    'add chain outside_v6',
    'add chain postrouting',
  ])
  assert.ok(what.slice(chains + 3).every(about => about.startsWith('add rule')))
})

test('fingerprint: tells the parts and their rules apart, and stays', () => {
  assert.match(fingerprint(guard), /^made by Mooring, rules [0-9a-f]{8}$/)
  assert.equal(fingerprint(guard), fingerprint(guard))
  assert.notEqual(fingerprint(guard), fingerprint(nat))
  const [base] = guard.chains
  assert.notEqual(fingerprint({ ...guard, chains: [{ ...base!, rules: base!.rules.slice(1) }] }), fingerprint(guard))
})

const twoBases: Part = {
  sets: [],
  chains: (['prerouting', 'output'] as const).map(hook => ({
    chain: { table, name: `two_${hook}`, base: { type: 'nat', hook, priority: -101, policy: 'accept' } as const },
    rules: [{ expressions: [give('accept')] }],
  })),
}

/** A kernel that has chains with so many rules, and the comment that the part would write. */
function kernelWith(rules: Record<string, number>, comment = fingerprint(twoBases)) {
  const batches: string[][] = []
  const userdata = Uint8Array.of(0, comment.length + 1, ...new TextEncoder().encode(`${comment}\0`))
  const execute = (requests: readonly Request[]) => {
    if (requests.length > 1 && requests[0]?.about === 'commit changes to nf_tables')
      batches.push(requests.slice(1, -1).map(request => request.about))
    return requests.map(request => {
      const name = /^read chain inet mooring (\w+)$/.exec(request.about)?.[1]
      if (name === undefined || rules[name] === undefined) return { messages: [], tolerated: undefined }
      const values = { table: 'mooring', name, use: rules[name], userdata }
      const body = Uint8Array.of(1, 0, 0, 0, ...chainAttributes.encode(values))
      return { messages: [{ type: 0x0a03, flags: 0, seq: 0, body }], tolerated: undefined }
    })
  }
  return { batches, execute }
}

test('ensureParts: where all base chains are as they should be it changes nothing', () => {
  const kernel = kernelWith({ two_prerouting: 1, two_output: 1 })
  assert.deepEqual(ensureParts(kernel, { parts: [twoBases] }), [])
  assert.deepEqual(kernel.batches, [])
})

test('ensureParts: one missing, emptied or older base chain makes the part anew, table first', () => {
  for (const kernel of [
    kernelWith({ two_prerouting: 1 }),
    kernelWith({ two_prerouting: 1, two_output: 0 }),
    kernelWith({ two_prerouting: 1, two_output: 1 }, 'made by Mooring, rules 00000000'),
  ]) {
    assert.deepEqual(ensureParts(kernel, { parts: [twoBases] }), [twoBases])
    assert.equal(kernel.batches[0]?.[0], 'add table inet mooring')
    assert.ok(kernel.batches[0]?.includes('delete chain inet mooring two_prerouting'))
  }
})

test('ensureParts: a part that is wanted only where it is stays away', () => {
  const empty = kernelWith({})
  assert.deepEqual(ensureParts(empty, { parts: [], ifPresent: [twoBases] }), [])
  const half = kernelWith({ two_output: 1 })
  assert.deepEqual(ensureParts(half, { parts: [], ifPresent: [twoBases] }), [twoBases])
})
