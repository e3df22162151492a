// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { NetlinkError } from '#netlink'
import { HostContext } from './context.ts'
import { inlineHost, threadedHost } from './host.ts'

// Whoever may open a netlink socket may ask: nothing here changes the machine.
const none = { name: 'no-such-link', owner: 'nobody', mac: new Uint8Array(6) }

test('inlineHost: answers from the calling thread', async () => {
  using context = new HostContext()
  const host = inlineHost(context)
  assert.equal((await host.describeLink({ name: 'lo' }))?.index, 1)
  assert.equal(await host.describeLink({ name: none.name }), undefined)
})

test('threadedHost: answers from threads of its own, calls side by side', async () => {
  await using host = await threadedHost()
  const [loopback, nothing, links] = await Promise.all([
    host.describeLink({ name: 'lo' }),
    host.describeLink({ name: none.name }),
    host.listOwnedLinks({ prefix: 'no such prefix' }),
  ])
  assert.deepEqual([loopback?.index, nothing, links], [1, undefined, []])
})

test('threadedHost: absence is success for removals, also for many at once', async () => {
  await using host = await threadedHost()
  await Promise.all(
    Array.from({ length: 40 }, (_, index) => host.removeLinks({ links: [{ ...none, name: `no${index}` }] })),
  )
})

test('threadedHost: an error keeps its class on the way from the thread, and the next call works', async () => {
  await using host = await threadedHost()
  // A name that is longer than any that a link may have is refused where it is encoded.
  const bad = { ...none, name: 'n'.repeat(200) }
  await assert.rejects(host.removeLinks({ links: [bad] }), /longer than 127 bytes/)
  const both = await Promise.allSettled([host.removeLinks({ links: [bad] }), host.removeLinks({ links: [none] })])
  assert.deepEqual(
    both.map(({ status }) => status),
    ['rejected', 'fulfilled'],
  )
  assert.equal((await host.describeLink({ name: 'lo' }))?.index, 1)
})

test('threadedHost: a namespace that is none fails at the start, and says its path', async () => {
  await assert.rejects(threadedHost('/dev/null'), /namespace "\/dev\/null"/)
})

test('threadedHost: tells when a thread has ended, and fails calls from then on', async () => {
  const host = await threadedHost()
  await host[Symbol.asyncDispose]()
  assert.match((await host.ended).message, /its thread has ended/)
  await assert.rejects(host.describeLink({ name: 'lo' }), error => !(error instanceof NetlinkError))
})
