// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { memoryJournal } from '#allocator'
import { EBUSY, EINVAL } from '#libc'
import { NetlinkError } from '#netlink'
import type { World } from '#plugins'
import { Strays } from './strays.ts'

/** A node whose kernel answers so, one after the other, and what was removed from it. */
function nodeOf(...answers: readonly ({ text: string; isDead: boolean }[] | Error)[]) {
  const journal = memoryJournal()
  const removals: string[][] = []
  let asked = 0
  const host = {
    async listStrays() {
      const answer = answers[asked++]!
      if (answer instanceof Error) throw answer
      return answer
    },
    removeStrays: async ({ texts }: { texts: string[] }) => void removals.push(texts),
  }
  return { world: { journal, host } as unknown as World, removals, asked: () => asked }
}
const dead = (text: string) => ({ text, isDead: true })
const living = (text: string) => ({ text, isDead: false })

test('round() removes what is dead twice, tells once of what lives, and looks no more when there is nothing', async () => {
  const node = nodeOf([dead('a'), living('b')], [dead('a'), dead('b')], [dead('b')], [])
  const strays = new Strays(node.world)
  assert.deepEqual(await strays.round(), { removed: [], kept: ['b'] })
  assert.deepEqual(await strays.round(), { removed: ['a'], kept: [] })
  assert.deepEqual(await strays.round(), { removed: ['b'], kept: [] })
  assert.deepEqual(node.removals, [['a'], ['b']])
  await strays.round()
  assert.equal(node.asked(), 3)
})

test('round() has nothing to do where the kernel has no nf_tables, and fails with other errors', async () => {
  const node = nodeOf(new NetlinkError('list sets', EINVAL))
  const strays = new Strays(node.world)
  for (let count = 0; count < 2; count++) assert.deepEqual(await strays.round(), { removed: [], kept: [] })
  assert.equal(node.asked(), 1)
  await assert.rejects(new Strays(nodeOf(new NetlinkError('list sets', EBUSY)).world).round(), /EBUSY/)
})
