// SPDX-License-Identifier: Apache-2.0

// What the session asks of Neutron and Nova, word by word, and how it reads the answers. Loopback only, no root.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deadlineIn } from '#base'
import { type CloudSession, cloudFromConf, type Limits, openCloud } from '#openstack'
import { type Fake, neutronError, portOf, type Request, startFake } from './fake.ts'

const limits = (ms = 10_000): Limits => ({ deadline: deadlineIn(ms) })

async function lab(
  onCall: (request: Request) => void,
): Promise<AsyncDisposable & { session: CloudSession; fake: Fake }> {
  const fake = await startFake(onCall)
  const conf = { username: 'demo', password: 'secret', project: 'demo', authUrl: fake.url }
  const session = openCloud(cloudFromConf(conf), { http: { backoffMs: 5, backoffMsMax: 20 } })
  return {
    session,
    fake,
    async [Symbol.asyncDispose]() {
      await session.close()
      await fake[Symbol.asyncDispose]()
    },
  }
}

/** Neutron's lists: sorted by id, `next` on every full page, 404 for a marker that is gone. */
function pages(ids: () => readonly string[], serverLimit = Number.POSITIVE_INFINITY) {
  return (request: Request) => {
    const all = [...ids()].sort()
    const limit = Math.min(Number(request.query.get('limit')), serverLimit)
    const marker = request.query.get('marker')
    if (marker !== null && !all.includes(marker))
      return request.answer(404, neutronError('PortNotFound', `Port ${marker} could not be found.`))
    const rest = marker === null ? all : all.slice(all.indexOf(marker) + 1)
    const page = rest.slice(0, limit)
    const links = page.length === limit ? [{ rel: 'next', href: 'http://wrong.host.invalid/v2.0/ports' }] : []
    request.answer(200, { ports: page.map(id => portOf(id)), ports_links: links })
  }
}

const numbered = (count: number) => Array.from({ length: count }, (_, index) => `p${String(index).padStart(5, '0')}`)

test('list() reads all pages, also when the last one is exactly full', async () => {
  for (const [count, requests] of [
    [0, 1],
    [499, 1],
    [500, 2],
    [501, 2],
    [1000, 3],
  ] as const) {
    await using on = await lab(pages(() => numbered(count)))
    assert.equal((await on.session.neutron.ports.list({}, limits())).length, count)
    assert.equal(on.fake.log().length, requests, `${count} ports`)
  }
})

test('list() reads all where the server gives less per page than was asked for', async () => {
  await using on = await lab(pages(() => numbered(250), 100))
  assert.equal((await on.session.neutron.ports.list({}, limits())).length, 250)
})

test('list() starts again when the port after which it goes on was deleted', async () => {
  let ids = numbered(700)
  let calls = 0
  const answer = pages(() => ids)
  await using on = await lab(request => {
    if (++calls === 2) ids = ids.filter(id => id !== 'p00499')
    answer(request)
  })
  const found = await on.session.neutron.ports.list({}, limits())
  assert.equal(found.length, 699)
  assert.ok(!found.some(port => port.id === 'p00499'))
})

test('list() asks for many ids in several requests, none too long for Neutron', async () => {
  await using on = await lab(request =>
    request.answer(200, { ports: request.query.getAll('id').map(id => portOf(id)) }),
  )
  const ids = numbered(250)
  assert.equal((await on.session.neutron.ports.list({ id: ids }, limits())).length, 250)
  assert.equal(on.fake.log().length, 3)
  for (const line of on.fake.log()) assert.ok(line.length < 8_000)
})

test('list() writes filters as Neutron reads them', async () => {
  await using on = await lab(request => request.answer(200, { ports: [] }))
  await on.session.neutron.ports.list(
    {
      network_id: 'n1',
      device_id: '',
      name: ['a', 'b'],
      ip_address: ['10.0.0.5', 'fd00::5'],
      subnet_id: 's1',
      tags: ['mooring:node=x', 'y'],
    },
    limits(),
  )
  const query = [...on.fake.requests.at(-1)!.query]
  assert.deepEqual(query, [
    ['network_id', 'n1'],
    ['device_id', ''],
    ['name', 'a'],
    ['name', 'b'],
    ['fixed_ips', 'ip_address=10.0.0.5'],
    ['fixed_ips', 'ip_address=fd00::5'],
    ['fixed_ips', 'subnet_id=s1'],
    ['tags', 'mooring:node=x,y'],
    ['limit', '500'],
  ])
})

test('update() and delete() send If-Match in the one form that Neutron takes', async () => {
  await using on = await lab(request =>
    request.method === 'PUT' ? request.answer(200, { port: portOf('p1') }) : request.answer(204),
  )
  await on.session.neutron.ports.update('p1', { name: 'x' }, { ...limits(), ifRevision: 7 })
  assert.equal(await on.session.neutron.ports.delete('p1', { ...limits(), ifRevision: 8 }), true)
  await on.session.neutron.ports.update('p1', { name: 'x' }, limits())
  const seen = on.fake.requests.slice(-3).map(request => request.headers['if-match'])
  assert.deepEqual(seen, ['revision_number=7', 'revision_number=8', undefined])
})

test('createMany() is one request, and complains when Neutron made another number', async () => {
  let made = 2
  await using on = await lab(request => request.answer(201, { ports: numbered(made).map(id => portOf(id)) }))
  const wanted = [{ network_id: 'n1' }, { network_id: 'n1' }]
  assert.equal((await on.session.neutron.ports.createMany(wanted, limits())).length, 2)
  assert.deepEqual(JSON.parse(on.fake.requests.at(-1)!.body), { ports: wanted })
  made = 1
  await assert.rejects(on.session.neutron.ports.createMany(wanted, limits()), /1 ports were made, 2 were asked for/)
  assert.deepEqual(await on.session.neutron.ports.createMany([], limits()), [])
})

test('addExtraRoutes() adds, removeExtraRoutes() removes, both repeated after a failure', async () => {
  let fail = true
  await using on = await lab(request => {
    fail = !fail
    if (!fail) return request.answer(503)
    request.answer(200, { router: { id: 'r1', name: '', routes: JSON.parse(request.body).router.routes } })
  })
  const routes = [{ destination: '10.200.0.0/24', nexthop: '10.0.0.5' }]
  assert.deepEqual(await on.session.neutron.routers.addExtraRoutes('r1', routes, limits()), routes)
  assert.deepEqual(await on.session.neutron.routers.removeExtraRoutes('r1', routes, limits()), routes)
  assert.deepEqual(on.fake.log(), [
    ...Array(2).fill('PUT /network/v2.0/routers/r1/add_extraroutes'),
    ...Array(2).fill('PUT /network/v2.0/routers/r1/remove_extraroutes'),
  ])
})

test('addExtraRoutes() refuses a destination with host bits: Neutron would store it and never program it', async () => {
  await using on = await lab(request => request.answer(200))
  const route = { destination: '10.201.5.7/24', nexthop: '10.0.0.5' }
  await assert.rejects(
    on.session.neutron.routers.addExtraRoutes('r1', [route], limits()),
    /host bits are set; use 10\.201\.5\.0\/24/,
  )
  await assert.rejects(
    on.session.neutron.routers.addExtraRoutes('r1', [{ destination: 'x', nexthop: '10.0.0.5' }], limits()),
    /Cannot parse prefix "x"/,
  )
  assert.deepEqual(on.fake.log(), [])
})

test('tags are added one by one, and what Neutron would lose is refused', async () => {
  await using on = await lab(request =>
    request.method === 'GET'
      ? request.answer(200, { tags: ['a=b'] })
      : request.method === 'PUT'
        ? request.answer(201, 'null')
        : request.answer(204),
  )
  const { tags } = on.session.neutron.ports
  await tags.add('p1', 'node=w 1', limits())
  assert.equal(await tags.remove('p1', 'node=w 1', limits()), true)
  assert.deepEqual(await tags.list('p1', limits()), ['a=b'])
  assert.deepEqual(on.fake.log(), [
    'PUT /network/v2.0/ports/p1/tags/node%3Dw%201',
    'DELETE /network/v2.0/ports/p1/tags/node%3Dw%201',
    'GET /network/v2.0/ports/p1/tags',
  ])
  await assert.rejects(tags.add('p1', 'a,b', limits()), /without a comma/)
  await assert.rejects(tags.add('p1', 'a/b', limits()), /no URL can carry its slash/)
})

test('extensions are asked for once', async () => {
  await using on = await lab(request =>
    request.answer(200, { extensions: [{ alias: 'extraroute-atomic' }, { alias: 'quotas' }] }),
  )
  const { extensions } = on.session.neutron
  assert.ok((await extensions.aliases(limits())).has('extraroute-atomic'))
  assert.equal((await extensions.aliases(limits())).size, 2)
  assert.equal(on.fake.log().length, 1)
})

const attached = (state: string) => ({
  interfaceAttachment: { port_id: 'p1', net_id: 'n1', mac_addr: 'fa:16:3e:00:00:01', port_state: state, fixed_ips: [] },
})

test('attach() of a port finds it attached after an answer that was lost', async () => {
  await using on = await lab(request =>
    request.method === 'POST' ? request.cut() : request.answer(200, attached('DOWN')),
  )
  const found = await on.session.nova.interfaces.attach('s1', { port_id: 'p1' }, limits())
  assert.equal(found.port_state, 'DOWN')
  assert.deepEqual(on.fake.log(), [
    'POST /compute/v2.1/servers/s1/os-interface',
    'GET /compute/v2.1/servers/s1/os-interface/p1',
  ])
})

test('attach() of a network is not repeated: a second port might be made', async () => {
  await using on = await lab(request =>
    request.answer(500, { computeFault: { code: 500, message: 'Unexpected API Error' } }),
  )
  await assert.rejects(on.session.nova.interfaces.attach('s1', { net_id: 'n1' }, limits()), {
    type: 'computeFault',
    effect: 'unknown',
  })
  assert.equal(on.fake.log().length, 1)
})

test('attach() of a port is not repeated where the hypervisor has no slot for it', async () => {
  const message = 'Failed to attach network adapter device to s1'
  await using on = await lab(request => request.answer(500, { computeFault: { code: 500, message } }))
  await assert.rejects(on.session.nova.interfaces.attach('s1', { port_id: 'p1' }, limits()), { kind: 'exhausted' })
  assert.equal(on.fake.log().length, 1)
})

test('flavorSpecs() are what the operator wrote, and none where the user may not read them', async () => {
  let status = 200
  await using on = await lab(request =>
    status === 200
      ? request.answer(200, { extra_specs: { 'mooring:max_nics': '8' } })
      : request.answer(status, { forbidden: { code: status, message: 'Policy does not allow' } }),
  )
  assert.deepEqual(await on.session.nova.servers.flavorSpecs('f', limits()), { 'mooring:max_nics': '8' })
  status = 403
  assert.deepEqual(await on.session.nova.servers.flavorSpecs('f', limits()), {})
})

test('waitUntilActive() and waitUntilDetached() ask until it is so, or the time is over', async () => {
  let asked = 0
  await using on = await lab(request => {
    asked++
    if (asked === 1) return request.answer(200, attached('DOWN'))
    if (asked === 2) return request.answer(200, attached('ACTIVE'))
    request.answer(404, { itemNotFound: { code: 404, message: 'not attached' } })
  })
  const { interfaces } = on.session.nova
  assert.equal((await interfaces.waitUntilActive('s1', 'p1', limits())).port_state, 'ACTIVE')
  await interfaces.waitUntilDetached('s1', 'p1', limits())
  await assert.rejects(interfaces.waitUntilActive('s1', 'p1', limits()), { kind: 'missing' })

  await using never = await lab(request => request.answer(200, attached('DOWN')))
  await assert.rejects(never.session.nova.interfaces.waitUntilActive('s1', 'p1', limits(400)), {
    type: 'TimeOut',
    message: /it is not ACTIVE yet, and no time is left/,
  })
})

test('servers are listed page by page', async () => {
  const ids = numbered(3)
  await using on = await lab(request => {
    const next = ids[ids.indexOf(request.query.get('marker') ?? '') + 1]
    const servers = next === undefined ? [] : [{ id: next, name: next, status: 'ACTIVE' }]
    request.answer(200, { servers, ...(next === ids.at(-1) ? {} : { servers_links: [{ rel: 'next', href: 'x' }] }) })
  })
  const found = await on.session.nova.servers.list({ name: '^w$' }, limits())
  assert.deepEqual(
    found.map(server => server.id),
    ids,
  )
  assert.equal(on.fake.requests[1]!.query.get('name'), '^w$')
})
