// SPDX-License-Identifier: Apache-2.0

/** 3(l) error shapes, 3(m) lists, 3(n) tags. */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { created, ip, type Json, makeWorld, nobody, novaRefused, type Reply, refused, type World } from './world.ts'

let world: World
let ports: Json[]
before(async () => {
  world = await makeWorld({}, false)
  const wanted = Array.from({ length: 6 }, (_, index) => ({
    network_id: world.networkId,
    name: `p${index}`,
    fixed_ips: [ip(`10.10.10.${100 + index}`)],
    ...(index === 0 && { device_id: 'somewhere', device_owner: 'compute:nova' }),
  }))
  ports = await created(world.member.neutron('POST', '/ports', { ports: wanted }), 'ports')
})
after(() => world.close())

const get = (query: string): Promise<Reply> => world.member.neutron('GET', `/ports${query}`)
const namesOf = async (query: string): Promise<string[]> => {
  const reply = await get(query)
  assert.equal(reply.status, 200, reply.text)
  return reply.body.ports.map((port: Json) => port.name).sort()
}
const put = (values: unknown): Promise<Reply> => world.member.neutron('PUT', `/ports/${ports[0].id}`, { port: values })

describe('3(l) error shapes', () => {
  test('3(l) Neutron: generic types, a request id', async () => {
    const unknown = await world.member.neutron('GET', '/bananas')
    refused(unknown, 404, 'HTTPNotFound', 'The resource could not be found.')
    assert.match(unknown.headers.get('x-openstack-request-id') ?? '', /^req-[0-9a-f-]{36}$/)
    refused(await world.member.neutron('PATCH', `/ports/${nobody}`, { port: {} }), 405, 'HTTPMethodNotAllowed')
    refused(await put({ admin_state_up: 'zz' }), 400, 'InvalidInput')
  })

  test('3(l) Neutron, policy -> 403 PolicyNotAuthorized', async () => {
    refused(
      await put({ 'binding:host_id': 'x' }),
      403,
      'PolicyNotAuthorized',
      '(rule:update_port and rule:update_port:binding:host_id) is disallowed by policy',
    )
  })

  test('3(l) Nova: one key that names the class, a request id', async () => {
    const reply = await world.member.nova('GET', `/servers/${nobody}`)
    novaRefused(reply, 404, 'itemNotFound', `Instance ${nobody} could not be found.`)
    assert.match(reply.headers.get('x-openstack-request-id') ?? '', /^req-/)
    assert.match(reply.headers.get('x-compute-request-id') ?? '', /^req-/)
  })

  test('3(l) Nova, unknown URL: code is a string', async () => {
    const reply = await world.member.nova('GET', '/banana')
    assert.equal(reply.status, 404)
    assert.deepEqual(reply.body, {
      message: 'The resource could not be found.<br /><br />\n\n\n',
      code: '404 Not Found',
      title: 'Not Found',
    })
  })

  test('3(l) Nova, bad microversion -> 406 computeFault; a good one is named in the answer', async () => {
    const versioned = (version: string): Promise<Reply> =>
      world.member.nova('GET', '/servers', undefined, { 'openstack-api-version': `compute ${version}` })
    novaRefused(
      await versioned('2.999'),
      406,
      'computeFault',
      'Version 2.999 is not supported by the API. Minimum is 2.1 and maximum is 2.93.',
    )
    assert.equal((await versioned('2.70')).headers.get('openstack-api-version'), 'compute 2.70')
    assert.equal((await world.member.nova('GET', '/servers')).headers.get('openstack-api-version'), 'compute 2.1')
  })

  test('3(l) Neutron, URL too long: 500 id filters 414 with an empty body, 200 are fine', async () => {
    const query = (count: number): string => `?${Array(count).fill(`id=${nobody}`).join('&')}`
    const long = await get(query(500))
    assert.equal(long.status, 414)
    assert.equal(long.text, '')
    assert.equal((await get(query(200))).status, 200)
  })

  test('3(l) a member does not see binding:host_id and the like in ports, an administrator does', async () => {
    const hidden = ['binding:host_id', 'binding:vif_type', 'binding:profile']
    const mine = (await get(`/${ports[0].id}`)).body.port
    const all = (await world.admin.neutron('GET', `/ports/${ports[0].id}`)).body.port
    for (const key of hidden) {
      assert.ok(!(key in mine), key)
      assert.ok(key in all, key)
    }
    assert.ok('binding:vnic_type' in mine)
  })

  test('3(l) unknown attribute, unknown filter, read-only attribute -> 400 HTTPBadRequest', async () => {
    refused(await put({ banana: 1 }), 400, 'HTTPBadRequest', "Unrecognized attribute(s) 'banana'")
    refused(await get('?banana=1'), 400, 'HTTPBadRequest', "['banana'] is invalid attribute for filtering")
    refused(await put({ status: 'DOWN' }), 400, 'HTTPBadRequest', 'Cannot update read-only attribute status')
  })

  test('3(l) a body that is not JSON, or has not the key -> 400 HTTPBadRequest', async () => {
    const send = (body: unknown): Promise<Reply> => world.member.neutron('PUT', `/ports/${ports[0].id}`, body)
    refused(await send('{bad'), 400, 'HTTPBadRequest', 'Body contains invalid data')
    refused(await send({ banana: {} }), 400, 'HTTPBadRequest', "Unable to find 'port' in request body")
  })

  test('3(l) extensions: extraroute-atomic and the others that a client looks for', async () => {
    const { extensions } = (await world.member.neutron('GET', '/extensions')).body
    const aliases = new Set(extensions.map((extension: Json) => extension.alias))
    for (const alias of ['extraroute-atomic', 'revision-if-match', 'allowed-address-pairs', 'standard-attr-tag']) {
      assert.ok(aliases.has(alias), alias)
    }
    assert.equal((await world.member.neutron('GET', '/extensions/extraroute-atomic')).status, 200)
    assert.equal((await world.member.neutron('GET', '/extensions/banana')).status, 404)
  })
})

describe('3(m) lists', () => {
  const ids = (): string[] => ports.map(port => port.id).sort()

  test('3(m) limit + marker: sorted by id, next and previous; href is built from the Host', async () => {
    const first = await get('?limit=2&fields=id')
    assert.deepEqual(
      first.body.ports.map((port: Json) => port.id),
      ids().slice(0, 2),
    )
    const rels = first.body.ports_links.map((link: Json) => link.rel)
    assert.deepEqual(rels, ['next', 'previous'])
    const { href } = first.body.ports_links[0]
    assert.match(href, /^http:\/\/127\.0\.0\.1:\d+\/.*\?limit=2&fields=id&marker=[0-9a-f-]{36}$/)
    const second = await fetch(href, { headers: { 'x-auth-token': world.member.token } })
    const body = (await second.json()) as Json
    assert.deepEqual(
      body.ports.map((port: Json) => port.id),
      ids().slice(2, 4),
    )
  })

  test('3(m) next is there when the page is exactly full, also if nothing follows; absent on a short page', async () => {
    const relsOf = async (limit: number): Promise<string[]> =>
      (await get(`?limit=${limit}&fields=id`)).body.ports_links.map((link: Json) => link.rel)
    assert.deepEqual(await relsOf(ports.length), ['next', 'previous'])
    assert.deepEqual(await relsOf(ports.length + 1), ['previous'])
    const beyond = await get(`?limit=2&marker=${ids().at(-1)}`)
    assert.deepEqual(beyond.body.ports, [])
  })

  test('3(m) a marker that was deleted -> 404 PortNotFound', async () => {
    refused(await get(`?limit=2&marker=${nobody}`), 404, 'PortNotFound')
  })

  test('3(m) limit=0 and no limit: everything at once', async () => {
    for (const query of ['?limit=0', '']) {
      const reply = await get(query)
      assert.equal(reply.body.ports.length, ports.length)
      assert.equal(reply.body.ports_links, undefined)
    }
  })

  test('3(m) fields, sort_key and sort_dir', async () => {
    const reply = await get('?fields=id&fields=name&sort_key=name&sort_dir=desc')
    assert.deepEqual(
      reply.body.ports.map((port: Json) => port.name),
      ['p5', 'p4', 'p3', 'p2', 'p1', 'p0'],
    )
    assert.deepEqual(Object.keys(reply.body.ports[0]).sort(), ['id', 'name'])
  })

  test('3(m) a repeated filter is OR', async () => {
    assert.deepEqual(await namesOf('?name=p1&name=p2'), ['p1', 'p2'])
    assert.deepEqual(await namesOf(`?id=${ports[3].id}&id=${ports[4].id}`), ['p3', 'p4'])
  })

  test('3(m) fixed_ips filters: address, OR, AND with the subnet, substring', async () => {
    assert.deepEqual(await namesOf('?fixed_ips=ip_address=10.10.10.101'), ['p1'])
    const two = '?fixed_ips=ip_address=10.10.10.101&fixed_ips=ip_address=10.10.10.102'
    assert.deepEqual(await namesOf(two), ['p1', 'p2'])
    assert.deepEqual(await namesOf(`?fixed_ips=ip_address=10.10.10.101&fixed_ips=subnet_id=${world.subnetId}`), ['p1'])
    assert.deepEqual(await namesOf(`?fixed_ips=ip_address=10.10.10.101&fixed_ips=subnet_id=${nobody}`), [])
    assert.deepEqual(await namesOf('?fixed_ips=ip_address_substr=10.10.10.10'), ['p0', 'p1', 'p2', 'p3', 'p4', 'p5'])
  })

  test('3(m) device_id, device_id= for unattached, device_owner, mac_address in any case, revision_number', async () => {
    assert.deepEqual(await namesOf('?device_id=somewhere'), ['p0'])
    assert.deepEqual(await namesOf('?device_id='), ['p1', 'p2', 'p3', 'p4', 'p5'])
    assert.deepEqual(await namesOf('?device_owner=compute:nova'), ['p0'])
    assert.deepEqual(await namesOf(`?mac_address=${ports[2].mac_address.toUpperCase()}`), ['p2'])
    assert.ok((await namesOf(`?revision_number=${ports[5].revision_number}`)).includes('p5'))
  })

  test('3(m) no changed_since -> 400', async () => {
    refused(await get('?changed_since=2020-01-01T00:00:00Z'), 400, 'HTTPBadRequest')
  })
})

describe('3(n) tags', () => {
  const tags = (method: string, path: string, body?: unknown): Promise<Reply> =>
    world.member.neutron(method, `/ports/${ports[1].id}/tags${path}`, body)

  test('3(n) tags in POST are accepted and dropped', async () => {
    // One port in the request; of several see fixed-ips.test.ts.
    const made = await world.member.neutron('POST', '/ports', { port: { network_id: world.networkId, tags: ['a'] } })
    const { id, tags } = made.body.port
    assert.deepEqual(tags, [])
    assert.deepEqual((await get(`/${id}`)).body.port.tags, [])
    assert.equal((await world.member.neutron('DELETE', `/ports/${id}`)).status, 204)
  })

  test('3(n) one: PUT 201, GET 204 or 404 TagNotFound, DELETE 204 or 404', async () => {
    assert.equal((await tags('PUT', '/cni:node=worker-1')).status, 201)
    assert.equal((await tags('GET', '/cni:node=worker-1')).status, 204)
    refused(await tags('GET', '/nope'), 404, 'TagNotFound', 'Tag nope could not be found.')
    assert.equal((await tags('DELETE', '/cni:node=worker-1')).status, 204)
    refused(await tags('DELETE', '/cni:node=worker-1'), 404, 'TagNotFound')
  })

  test('3(n) all: PUT replaces, DELETE clears', async () => {
    const reply = await tags('PUT', '', { tags: ['a', 'b'] })
    assert.equal(reply.status, 200)
    assert.deepEqual(reply.body.tags.sort(), ['a', 'b'])
    assert.deepEqual((await tags('GET', '')).body.tags.sort(), ['a', 'b'])
    assert.equal((await tags('DELETE', '')).status, 204)
    assert.deepEqual((await tags('GET', '')).body.tags, [])
  })

  test('3(n) =, :, /, comma and 61 characters are accepted', async () => {
    const odd = ['a/b', 'c=d', 'e:f', 'x,y', 'z'.repeat(61)]
    assert.equal((await tags('PUT', '', { tags: odd })).status, 200)
    assert.deepEqual((await tags('GET', '')).body.tags.sort(), odd)
    refused(await tags('PUT', '/a%2Fb'), 404, 'HTTPNotFound')
  })

  test('3(n) filters: tags, tags-any, not-tags, not-tags-any, with %3D for =', async () => {
    await tags('PUT', '', { tags: ['c=d', 'e'] })
    assert.deepEqual(await namesOf('?tags=c%3Dd,e'), ['p1'])
    assert.deepEqual(await namesOf('?tags=e,f'), [])
    assert.deepEqual(await namesOf('?tags-any=e,f'), ['p1'])
    assert.ok(!(await namesOf('?not-tags=e')).includes('p1'))
    assert.ok((await namesOf('?not-tags=e,f')).includes('p1'))
    assert.ok(!(await namesOf('?not-tags-any=e,f')).includes('p1'))
  })
})
