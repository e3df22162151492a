// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { tryParseMac } from '#base'
import { concat, type Reply, type Request } from '#netlink'
import { type LinkAttributes, linkAttributes, linkHeader } from '#rtnetlink'
import type { HostContext } from './context.ts'
import { describeLink, listOwnedLinks, removeLinks } from './links.ts'

const mac = tryParseMac('02:00:00:00:00:01')!
const other = tryParseMac('02:00:00:00:00:02')!
type FakeLink = LinkAttributes & { ifname: string; index: number }

/** A node with these links; `removed` are the requests that take something away. */
function nodeWith(...links: FakeLink[]) {
  const removed: string[] = []
  const execute = (requests: readonly Request[]): Reply[] =>
    requests.map(request => {
      const isDump = request.about === 'list links'
      const found = links.filter(({ ifname }) => isDump || request.about === `find link ${ifname}`)
      if (!request.about.startsWith('find') && !isDump) removed.push(request.about)
      const messages = found.map(({ index, ...attributes }) => ({
        type: 16,
        flags: 0,
        seq: 1,
        body: concat([linkHeader.encode({ index }), linkAttributes.encode(attributes)]),
      }))
      return { messages, tolerated: undefined }
    })
  return { context: { route: { execute } } as unknown as HostContext, removed }
}

test('removeLinks: removes the link that has the alias, whatever its MAC is now', () => {
  const { context, removed } = nodeWith({ ifname: 'veth1', index: 7, ifalias: 'mine', address: other })
  removeLinks(context, [{ name: 'veth1', owner: 'mine', mac }])
  assert.deepEqual(removed, ['remove link 7'])
})

test('removeLinks: removes the link that has no alias yet, by its MAC', () => {
  const { context, removed } = nodeWith({ ifname: 'veth1', index: 7, address: mac })
  removeLinks(context, [{ name: 'veth1', owner: 'mine', mac }])
  assert.deepEqual(removed, ['remove link 7'])
})

test("removeLinks: leaves what is another's, and what is not there", () => {
  const { context, removed } = nodeWith(
    { ifname: 'veth1', index: 7, ifalias: 'yours', address: mac },
    { ifname: 'veth2', index: 8, address: other },
  )
  const links = ['veth1', 'veth2', 'veth3'].map(name => ({ name, owner: 'mine', mac }))
  removeLinks(context, links)
  assert.deepEqual(removed, [])
})

test('removeLinks: removes several as a group of their own, which no link carries', () => {
  const { context, removed } = nodeWith(
    { ifname: 'veth1', index: 7, ifalias: 'mine', group: 0 },
    { ifname: 'veth2', index: 8, ifalias: 'mine', group: 0 },
  )
  removeLinks(
    context,
    ['veth1', 'veth2'].map(name => ({ name, owner: 'mine', mac })),
  )
  assert.deepEqual(removed.slice(0, 2), ['change link 7', 'change link 8'])
  const [, group] = /^remove links of group (\d+)$/.exec(removed[2]!)!
  assert.ok(Number(group) >= 0x4000_0000)
  assert.equal(removed.length, 3)
})

test('listOwnedLinks: lists by the beginning of the alias', () => {
  const { context } = nodeWith(
    { ifname: 'veth1', index: 7, ifalias: 'mooring veth-route a b c' },
    { ifname: 'veth2', index: 8, ifalias: 'not mooring' },
    { ifname: 'eth0', index: 2 },
  )
  assert.deepEqual(listOwnedLinks(context, 'mooring '), [{ name: 'veth1', owner: 'mooring veth-route a b c' }])
})

test('describeLink: tells what and whose a link is, and undefined where there is none', () => {
  const { context } = nodeWith({ ifname: 'veth1', index: 7, ifalias: 'mine', address: mac, linkinfo: { kind: 'veth' } })
  assert.deepEqual(describeLink(context, 'veth1'), { index: 7, kind: 'veth', owner: 'mine', mac })
  assert.equal(describeLink(context, 'veth2'), undefined)
})
