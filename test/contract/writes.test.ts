// SPDX-License-Identifier: Apache-2.0

/** 3(b) concurrent writes, If-Match, revisions. */
import assert from 'node:assert/strict'
import { after, before, beforeEach, describe, test } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import { created, inSomeRound, ip, ipsOf, type Json, makeWorld, type Reply, refused, type World } from './world.ts'

describe('3(b) concurrent writes', () => {
  let world: World
  let port: Json
  let spare: Json
  before(async () => {
    world = await makeWorld()
    const make = (address: string): Promise<Json> => {
      const wanted = { network_id: world.networkId, fixed_ips: [ip(address)] }
      return created(world.member.neutron('POST', '/ports', { port: wanted }), 'port')
    }
    port = await make('10.10.10.50')
    spare = await make('10.10.10.40')
  })
  after(() => world.close())
  beforeEach(async () => {
    await put(port, { fixed_ips: [ip('10.10.10.50')] })
  })

  const put = (target: Json, values: object, headers: Record<string, string> = {}): Promise<Reply> =>
    world.member.neutron('PUT', `/ports/${target.id}`, { port: values }, headers)
  const get = async (target: Json): Promise<Json> =>
    (await world.member.neutron('GET', `/ports/${target.id}`)).body.port
  const ifMatch = (revision: number): Record<string, string> => ({ 'if-match': `revision_number=${revision}` })
  const addresses = (...ends: number[]): string[] => [50, ...ends].map(end => `10.10.10.${end}`)
  const statuses = (replies: readonly Reply[]): number[] => replies.map(reply => reply.status)
  const with50 = (...ends: number[]): object => ({
    fixed_ips: addresses(...ends).map(ip),
  })

  test('3(b) two PUTs at once: both 200, each sees its own view, the port ends with the union', () =>
    inSomeRound(async round => {
      await put(port, with50())
      const [x, y] = [61 + 2 * round, 62 + 2 * round]
      const [a, b] = await Promise.all([put(port, with50(x)), put(port, with50(y))])
      assert.deepEqual([a.status, b.status], [200, 200], a.text + b.text)
      assert.deepEqual(ipsOf(a.body.port), addresses(x))
      assert.deepEqual(ipsOf(b.body.port), addresses(y))
      assert.notEqual(a.body.port.revision_number, b.body.port.revision_number)
      return isDeepStrictEqual(ipsOf(await get(port)), addresses(x, y))
    }))

  test('3(b) one removes .60 while one adds .61: both 200, the port ends with .50 and .61', () =>
    inSomeRound(async () => {
      await put(port, with50(60))
      const replies = await Promise.all([put(port, with50()), put(port, with50(60, 61))])
      assert.deepEqual(statuses(replies), [200, 200])
      return isDeepStrictEqual(ipsOf(await get(port)), addresses(61))
    }))

  test('3(b) one after the other with a stale list is the lost update', async () => {
    await put(port, with50(61))
    await put(port, with50(62))
    assert.deepEqual(ipsOf(await get(port)), ['10.10.10.50', '10.10.10.62'])
  })

  test('3(b) If-Match, one after the other: 200, then 412 RevisionNumberConstraintFailed', async () => {
    const { revision_number: revision } = await get(port)
    assert.equal((await put(port, { name: 'one' }, ifMatch(revision))).status, 200)
    refused(
      await put(port, { name: 'two' }, ifMatch(revision)),
      412,
      'RevisionNumberConstraintFailed',
      `Constrained to ${revision}, but current revision is ${revision + 1}`,
    )
  })

  test('3(b) If-Match does not protect PUTs that overlap: both 200, union', () =>
    inSomeRound(async round => {
      await put(port, with50())
      const [x, y] = [71 + 2 * round, 72 + 2 * round]
      const { revision_number: revision } = await get(port)
      const replies = await Promise.all([
        put(port, with50(x), ifMatch(revision)),
        put(port, with50(y), ifMatch(revision)),
      ])
      if (replies.some(reply => reply.status === 412)) return false
      assert.deepEqual(statuses(replies), [200, 200])
      return isDeepStrictEqual(ipsOf(await get(port)), addresses(x, y))
    }))

  test('3(b) If-Match does not protect overlapping PUTs of name: more than one can get 200', async () => {
    const { revision_number: revision } = await get(port)
    const names = ['a', 'b', 'c', 'd']
    const replies = await Promise.all(names.map(name => put(port, { name }, ifMatch(revision))))
    assert.ok(replies.some(reply => reply.status === 200))
    assert.ok(replies.every(reply => reply.status === 200 || reply.status === 412))
    assert.ok(names.includes((await get(port)).name))
  })

  test('3(b) a malformed If-Match is ignored: 200', async () => {
    assert.equal((await put(port, { name: 'x' }, { 'if-match': 'banana' })).status, 200)
    assert.equal((await put(port, { name: 'x' }, { 'if-match': 'W/"abc"' })).status, 200)
  })

  test('3(b) If-Match works on DELETE and on add_extraroutes: 412 when stale', async () => {
    refused(
      await world.member.neutron('DELETE', `/ports/${port.id}`, undefined, ifMatch(0)),
      412,
      'RevisionNumberConstraintFailed',
    )
    const routes = [{ destination: '10.201.1.0/24', nexthop: '10.10.10.50' }]
    refused(
      await world.member.neutron(
        'PUT',
        `/routers/${world.routerId}/add_extraroutes`,
        { router: { routes } },
        ifMatch(0),
      ),
      412,
      'RevisionNumberConstraintFailed',
    )
  })

  test('3(b) the revision in a PUT answer can be one behind: unchanged fixed_ips, description', async () => {
    const same = await put(port, with50())
    assert.equal((await get(port)).revision_number, same.body.port.revision_number + 1)
    const described = await put(port, { description: `d${Math.random()}` })
    assert.equal((await get(port)).revision_number, described.body.port.revision_number + 1)
  })

  test('3(b) no-op writes bump the revision; a no-op add_extraroutes does not', async () => {
    await put(port, { name: 'same' })
    const { revision_number: first } = await get(port)
    await put(port, { name: 'same' })
    const { revision_number: second } = await get(port)
    assert.equal(second, first + 1)
    await put(port, with50())
    assert.equal((await get(port)).revision_number, second + 1)
    const routes = [{ destination: '10.202.1.0/24', nexthop: '10.10.10.50' }]
    const add = (): Promise<Reply> =>
      world.member.neutron('PUT', `/routers/${world.routerId}/add_extraroutes`, { router: { routes } })
    const one = await add()
    const two = await add()
    assert.equal(two.body.router.revision_number, one.body.router.revision_number)
  })

  test('3(b) tags bump the revision', async () => {
    const { revision_number: revision } = await get(port)
    await world.member.neutron('PUT', `/ports/${port.id}/tags/a`)
    assert.ok((await get(port)).revision_number > revision)
  })

  test('3(b) two ports that claim the same address at once: one 200, the other 409', async () => {
    const replies = await Promise.all([
      put(port, with50(80)),
      put(spare, { fixed_ips: [ip('10.10.10.40'), ip('10.10.10.80')] }),
    ])
    assert.deepEqual(replies.map(reply => reply.status).sort(), [200, 409])
    refused(replies.find(reply => reply.status === 409)!, 409, 'IpAddressAlreadyAllocated')
  })

  test('3(b) two PUTs at once that add the same address to the same port: both 200', async () => {
    const replies = await Promise.all([put(port, with50(85)), put(port, with50(85))])
    assert.deepEqual(
      replies.map(reply => reply.status),
      [200, 200],
    )
    assert.deepEqual(ipsOf(await get(port)), ['10.10.10.50', '10.10.10.85'])
  })
})
