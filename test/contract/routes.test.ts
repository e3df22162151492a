// SPDX-License-Identifier: Apache-2.0

/** 3(c) extra routes. */
import assert from 'node:assert/strict'
import { after, before, beforeEach, describe, test } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import { created, inSomeRound, ip, isReal, makeWorld, type Reply, refused, type World } from './world.ts'

describe('3(c) extra routes', () => {
  let world: World
  before(async () => {
    world = await makeWorld()
    const port = { network_id: world.networkId, fixed_ips: [ip('10.10.10.11')] }
    await created(world.member.neutron('POST', '/ports', { port }), 'port')
  })
  after(() => world.close())
  beforeEach(async () => {
    if ((await held()).length > 0) await put([])
  })

  const route = (destination: string, nexthop = '10.10.10.11') => ({ destination, nexthop })
  const send = (path: string, routes: unknown): Promise<Reply> =>
    world.member.neutron('PUT', `/routers/${world.routerId}${path}`, { router: { routes } })
  const put = (routes: unknown): Promise<Reply> => send('', routes)
  const add = (...routes: unknown[]): Promise<Reply> => send('/add_extraroutes', routes)
  const remove = (...routes: unknown[]): Promise<Reply> => send('/remove_extraroutes', routes)
  const held = async (): Promise<unknown[]> =>
    (await world.member.neutron('GET', `/routers/${world.routerId}`)).body.router.routes

  test('3(c) the limit of 30 is 400 RoutesExhausted, not 409, for PUT and add_extraroutes', async () => {
    const many = Array.from({ length: 31 }, (_, index) => route(`10.202.${index}.0/24`))
    const message = `Unable to complete operation for ${world.routerId}. The number of routes exceeds the maximum 30.`
    refused(await put(many), 400, 'RoutesExhausted', message)
    refused(await add(...many), 400, 'RoutesExhausted', message)
    assert.equal((await add(...many.slice(1))).status, 200)
    refused(await add(many[0]), 400, 'RoutesExhausted', message)
    assert.equal((await held()).length, 30)
  })

  test('3(c) add one that is there -> 200, unchanged', async () => {
    await add(route('10.201.1.0/24'))
    const again = await add(route('10.201.1.0/24'))
    assert.equal(again.status, 200)
    assert.deepEqual(again.body.router.routes, [route('10.201.1.0/24')])
  })

  test('3(c) remove one that is not there -> 200, unchanged', async () => {
    const reply = await remove(route('10.222.0.0/24'))
    assert.equal(reply.status, 200)
    assert.deepEqual(reply.body.router.routes, [])
  })

  test('3(c) same destination, second nexthop -> 200, both kept; removing one leaves the other', async () => {
    await add(route('10.201.1.0/24'))
    const two = await add(route('10.201.1.0/24', '10.10.10.12'))
    assert.equal(two.body.router.routes.length, 2)
    const one = await remove(route('10.201.1.0/24'))
    assert.deepEqual(one.body.router.routes, [route('10.201.1.0/24', '10.10.10.12')])
  })

  test('3(c) nexthop not on a connected subnet -> 400 InvalidRoutes with the whole list', async () => {
    await add(route('10.201.1.0/24'))
    refused(
      await add(route('10.201.9.0/24', '192.0.2.1')),
      400,
      'InvalidRoutes',
      "Invalid format for routes: [{'destination': '10.201.1.0/24', 'nexthop': '10.10.10.11'}, {'destination': '10.201.9.0/24', 'nexthop': '192.0.2.1'}], the nexthop is not connected with router",
    )
  })

  test("3(c) nexthop is the router's own address -> 400 InvalidRoutes", async () => {
    refused(await add(route('10.201.9.0/24', '10.10.10.1')), 400, 'InvalidRoutes', /, the nexthop is used by router$/)
  })

  test('3(c) nexthop on the subnet that no port owns -> 200', async () => {
    assert.equal((await add(route('10.201.1.0/24', '10.10.10.77'))).status, 200)
  })

  test('3(c) destination inside the connected subnet -> 200', async () => {
    assert.equal((await add(route('10.10.10.128/25'))).status, 200)
  })

  test('3(c) destination with host bits: add_extraroutes 200 and stored as given, PUT 400', async () => {
    const reply = await add(route('10.201.5.7/24'))
    assert.equal(reply.status, 200)
    assert.deepEqual(reply.body.router.routes, [route('10.201.5.7/24')])
    refused(
      await put([route('10.201.5.7/24')]),
      400,
      'HTTPBadRequest',
      "Invalid input for routes. Reason: '10.201.5.7/24' is not a recognized CIDR, '10.201.5.0/24' is recommended.",
    )
  })

  test('3(c) the same route twice: add_extraroutes 200, PUT 400', async () => {
    const reply = await add(route('10.201.1.0/24'), route('10.201.1.0/24'))
    assert.deepEqual(reply.body.router.routes, [route('10.201.1.0/24')])
    refused(await put([route('10.201.1.0/24'), route('10.201.1.0/24')]), 400, 'HTTPBadRequest', /Duplicate hostroute/)
  })

  test("3(c) remove_router_interface of the nexthops' subnet -> 409 RouterInterfaceInUseByRoute", async () => {
    await add(route('10.201.1.0/24'))
    const reply = await world.member.neutron('PUT', `/routers/${world.routerId}/remove_router_interface`, {
      subnet_id: world.subnetId,
    })
    refused(
      reply,
      409,
      'RouterInterfaceInUseByRoute',
      `Router interface for subnet ${world.subnetId} on router ${world.routerId} cannot be deleted, as it is required by one or more routes.`,
    )
  })

  test('3(c) unknown router -> 404 RouterNotFound', async () => {
    const reply = await world.member.neutron('PUT', '/routers/banana/add_extraroutes', { router: { routes: [] } })
    refused(reply, 404, 'RouterNotFound', 'Router banana could not be found')
  })

  test('3(c) 8 concurrent add_extraroutes, then 8 concurrent remove_extraroutes: nothing is lost', async () => {
    const routes = Array.from({ length: 8 }, (_, index) => route(`10.203.${index}.0/24`))
    const added = await Promise.all(routes.map(entry => add(entry)))
    assert.deepEqual(new Set(added.map(reply => reply.status)), new Set([200]))
    assert.equal((await held()).length, 8)
    const removed = await Promise.all(routes.map(entry => remove(entry)))
    assert.deepEqual(new Set(removed.map(reply => reply.status)), new Set([200]))
    assert.deepEqual(await held(), [])
  })

  test('3(c) concurrent plain PUTs of one route each: all 200, all present', () =>
    inSomeRound(async () => {
      await put([])
      const routes = Array.from({ length: 4 }, (_, index) => route(`10.204.${index}.0/24`))
      const replies = await Promise.all(routes.map(entry => put([entry])))
      assert.deepEqual(new Set(replies.map(reply => reply.status)), new Set([200]))
      const kept = await held()
      const strangers = kept.filter(entry => !routes.some(own => isDeepStrictEqual(own, entry)))
      assert.deepEqual(strangers, [])
      // The real one starts as many at once as it has workers and time: two that overlap show that neither replaced
      // the other, which one after the other always does.
      return kept.length >= (isReal ? 2 : routes.length)
    }))

  test('3(c) routes come back sorted', async () => {
    const reply = await put([route('10.201.2.0/24'), route('10.201.1.0/24')])
    assert.deepEqual(reply.body.router.routes, [route('10.201.1.0/24'), route('10.201.2.0/24')])
  })

  test('3(c) add_extraroutes answers with what GET does not show to a member', async () => {
    const hidden = ['gw_port_id', 'ha', 'distributed']
    const answer = (await add(route('10.201.1.0/24'))).body.router
    const shown = (await world.member.neutron('GET', `/routers/${world.routerId}`)).body.router
    for (const key of hidden) {
      assert.ok(key in answer, key)
      assert.ok(!(key in shown), key)
    }
  })

  test('3(c) an empty list clears', async () => {
    await add(route('10.201.1.0/24'))
    assert.deepEqual((await put([])).body.router.routes, [])
  })
})
