// SPDX-License-Identifier: Apache-2.0

// The session against the real Keystone, Neutron and Nova of `lab/openstack`: run it after `eval "$(lab/openstack env)"`.
// Makes a project of its own and takes it away again. One test needs root.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { deadlineIn } from '#base'
import {
  type CloudSession,
  cloudFromConf,
  type Limits,
  type Network,
  OpenStackError,
  openCloud,
  type Port,
  type Router,
  type Subnet,
} from '#openstack'
import { countedService } from './counted-service.ts'
import { createLabProject, type LabProject, labMissing } from './lab.ts'

const limits = (ms = 60_000): Limits => ({ deadline: deadlineIn(ms) })
const refused = (facts: Partial<OpenStackError>) => (error: unknown) => {
  assert.ok(error instanceof OpenStackError, String(error))
  for (const [key, value] of Object.entries(facts))
    assert.deepEqual(error[key as keyof OpenStackError], value, error.message)
  return true
}

/** With 500, a slow Neutron needs minutes for the answers. */
const CALLERS = Number(process.env['MOORING_TOKEN_CALLERS'] ?? 40)

/** Long enough for all of them, on a busy machine too. */
const TOKEN_SECONDS = 40
const LAB = fileURLToPath(new URL('../../lab/openstack', import.meta.url))

const skip = (await labMissing()) ?? false
const notRoot = process.getuid!() !== 0 && 'starts a service of the lab: needs root'

describe('the real OpenStack', { skip, timeout: 600_000 }, () => {
  let project: LabProject
  let session: CloudSession
  let network: Network
  let subnet: Subnet
  let router: Router

  before(async () => {
    project = await createLabProject()
    session = openCloud(project.password)
    const { neutron } = session
    network = await neutron.networks.create({ name: 'test' }, limits())
    subnet = await neutron.subnets.create(
      { network_id: network.id, cidr: '10.77.0.0/24', ip_version: 4, enable_dhcp: false },
      limits(),
    )
    const external_gateway_info = { network_id: project.demo['external_network_id']! }
    router = await neutron.routers.create({ name: 'test', external_gateway_info }, limits())
    await neutron.routers.addInterface(router.id, subnet.id, limits())
  })
  after(async () => {
    await session.close()
    await project[Symbol.asyncDispose]()
  })

  test('both ways to log in give a token of the project', async () => {
    const other = openCloud(project.applicationCredential)
    try {
      for (const each of [session, other]) {
        const info = await each.identity.tokenInfo(limits())
        assert.equal(info.project?.id, project.id)
        assert.ok(info.roles.includes('member'))
        assert.ok(info.expiresAtMs > Date.now())
      }
      assert.equal((await other.neutron.networks.get(network.id, limits()))?.name, 'test')
    } finally {
      await other.close()
    }
  })

  test('wrong credentials are of kind auth, and the secret is not in the error', async () => {
    const { authUrl } = project.password
    const wrong = [
      { username: 'demo', password: 'wrong-password', project: 'demo', authUrl },
      {
        applicationCredentialId: project.applicationCredentialId,
        applicationCredentialSecret: 'wrong-password',
        authUrl,
      },
      { applicationCredentialId: 'f'.repeat(32), applicationCredentialSecret: 'wrong-password', authUrl },
    ]
    for (const conf of wrong) {
      const each = openCloud(cloudFromConf(conf))
      await assert.rejects(each.identity.tokenInfo(limits()), (error: unknown) => {
        assert.doesNotMatch(String((error as Error).stack), /wrong-password/)
        return refused({ service: 'keystone', kind: 'auth' })(error)
      })
      await each.close()
    }
  })

  test('a token from the cache is used, and one that is no good is replaced once', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'mooring-real-'))
    const tokenCache = join(directory, 'tokens', 'lab.json')
    try {
      const first = openCloud(project.password, { tokenCache })
      const { receivedAtMs } = await first.identity.tokenInfo(limits())
      await first.close()
      const second = openCloud(project.password, { tokenCache })
      assert.equal((await second.identity.tokenInfo(limits())).receivedAtMs, receivedAtMs)
      assert.equal((await second.neutron.networks.list({ id: network.id }, limits())).length, 1)
      await second.close()
    } finally {
      rmSync(directory, { recursive: true })
    }
  })

  /** Keystone alone is behind the door: its catalog leads to the others themselves. */
  async function countedLogins(directory: string, authUrl = project.password.authUrl) {
    const stack = new AsyncDisposableStack()
    const door = stack.use(await countedService(new URL(authUrl).origin))
    const behind = { ...project.password, authUrl: authUrl.replace(new URL(authUrl).origin, door.url) }
    const tokenCache = join(directory, 'tokens', 'lab.json')
    const session = openCloud(behind, { tokenCache })
    stack.defer(() => session.close())
    return {
      session,
      authUrl,
      token: () => JSON.parse(readFileSync(tokenCache, 'utf8')).token as string,
      logins: () => door.calls().filter(each => each === 'POST /v3/auth/tokens').length,
      [Symbol.asyncDispose]: () => stack.disposeAsync(),
    }
  }

  /** Callers at once, each of whom is answered. */
  async function askAll({ neutron }: CloudSession): Promise<void> {
    // Who waits behind 500 others begins nothing that may not end in time: here there is time.
    const all = Array.from({ length: CALLERS }, () => neutron.networks.get(network.id, limits(600_000)))
    for (const found of await Promise.all(all)) assert.equal(found?.id, network.id)
  }

  test(`${CALLERS} callers whose token was revoked make one token request`, async t => {
    const directory = mkdtempSync(join(tmpdir(), 'mooring-real-'))
    try {
      await using counted = await countedLogins(directory)
      await counted.session.identity.tokenInfo(limits())
      // Neutron has not seen it yet, and so does not remember that it was valid.
      const token = counted.token()
      const headers = { 'x-auth-token': token, 'x-subject-token': token }
      assert.equal((await fetch(`${counted.authUrl}/auth/tokens`, { method: 'DELETE', headers })).status, 204)
      const begin = performance.now()
      await askAll(counted.session)
      t.diagnostic(`${CALLERS} callers: ${Math.round(performance.now() - begin)} ms`)
      assert.equal(counted.logins(), 2)
      assert.notEqual(counted.token(), token)
    } finally {
      rmSync(directory, { recursive: true })
    }
  })

  test(`${CALLERS} callers at the end of a token’s life make one token request`, { skip: notRoot }, async () => {
    const directory = mkdtempSync(join(tmpdir(), 'mooring-real-'))
    try {
      // A Keystone beside the lab's own, whose tokens end soon.
      const authUrl = execFileSync(LAB, ['brief', String(TOKEN_SECONDS)], { encoding: 'utf8' }).trim()
      await using counted = await countedLogins(directory, authUrl)
      const { expiresAtMs } = await counted.session.identity.tokenInfo(limits())
      const leftMs = () => expiresAtMs - Date.now()
      assert.ok(leftMs() <= TOKEN_SECONDS * 1_000, `it ends in ${leftMs()} ms`)
      await askAll(counted.session)
      assert.equal(counted.logins(), 1)
      await sleep(Math.max(0, leftMs()) + 1_000)
      await askAll(counted.session)
      assert.equal(counted.logins(), 2)
    } finally {
      execFileSync(LAB, ['brief', '--stop'])
      rmSync(directory, { recursive: true })
    }
  })

  test('a port is made, changed, guarded by its revision, tagged, found and deleted', async () => {
    const { ports } = session.neutron
    const made = await ports.create({ network_id: network.id, name: 'one', device_id: 'pod-1' }, limits())
    assert.equal(made.fixed_ips.length, 1)
    const kept = made.fixed_ips.map(({ ip_address, subnet_id }) => ({ ip_address, subnet_id }))
    const grown = await ports.update(made.id, { fixed_ips: [...kept, { subnet_id: subnet.id }] }, limits())
    assert.equal(grown.fixed_ips.length, 2)
    assert.ok(grown.fixed_ips.some(each => each.ip_address === kept[0]!.ip_address))

    const { revision_number } = (await ports.get(made.id, limits()))!
    await ports.update(made.id, { name: 'two' }, { ...limits(), ifRevision: revision_number })
    await assert.rejects(
      ports.update(made.id, { name: 'three' }, { ...limits(), ifRevision: revision_number }),
      refused({ status: 412, type: 'RevisionNumberConstraintFailed', kind: 'conflict' }),
    )
    await assert.rejects(ports.delete(made.id, { ...limits(), ifRevision: revision_number }), refused({ status: 412 }))

    await ports.tags.add(made.id, 'mooring:node=worker-1', limits())
    await ports.tags.add(made.id, 'mooring:node=worker-1', limits())
    await ports.tags.replace(made.id, ['mooring:node=worker-1', 'second', 'with/slash'], limits())
    const ids = (found: Port[]) => found.map(port => port.id)
    assert.deepEqual(ids(await ports.list({ tags: ['mooring:node=worker-1', 'second'] }, limits())), [made.id])
    assert.deepEqual(ids(await ports.list({ tagsAny: ['second', 'third'] }, limits())), [made.id])
    assert.deepEqual(ids(await ports.list({ device_id: 'pod-1', name: ['one', 'two'] }, limits())), [made.id])
    const addresses = grown.fixed_ips.map(each => each.ip_address)
    assert.deepEqual(ids(await ports.list({ ip_address: addresses, subnet_id: subnet.id }, limits())), [made.id])
    assert.equal(await ports.tags.remove(made.id, 'second', limits()), true)
    assert.equal(await ports.tags.remove(made.id, 'second', limits()), false)
    assert.deepEqual(await ports.tags.list(made.id, limits()), ['mooring:node=worker-1', 'with/slash'])

    assert.equal(await ports.delete(made.id, limits()), true)
    assert.equal(await ports.delete(made.id, limits()), false)
    assert.equal(await ports.get(made.id, limits()), undefined)
    assert.equal(await ports.tags.list(made.id, limits()), undefined)
  })

  test('many ports are made at once, or none', async () => {
    const { ports, quotas } = session.neutron
    const two = await ports.createMany(
      [1, 2].map(each => ({ network_id: network.id, name: `bulk-${each}` })),
      limits(),
    )
    assert.equal(two.length, 2)
    const { used } = (await quotas.details(project.id, limits()))['port']!
    await project.admin.neutron.quotas.set(project.id, { port: used + 1 }, limits())
    await assert.rejects(
      ports.createMany(
        [3, 4].map(each => ({ network_id: network.id, name: `bulk-${each}` })),
        limits(),
      ),
      refused({ status: 409, type: 'OverQuota', kind: 'quota', effect: 'none' }),
    )
    assert.deepEqual(await ports.list({ name: ['bulk-3', 'bulk-4'] }, limits()), [])
    assert.equal((await quotas.get(project.id, limits()))['port'], used + 1)
    await project.admin.neutron.quotas.reset(project.id, limits())
    for (const port of two) await ports.delete(port.id, limits())
  })

  test('a create with find makes no second port', async () => {
    const { ports } = session.neutron
    const find = async (each: Limits) => (await ports.list({ name: 'found', network_id: network.id }, each))[0]
    const made = await ports.create({ network_id: network.id, name: 'found' }, { ...limits(), find })
    assert.equal((await find(limits()))?.id, made.id)
    await ports.delete(made.id, limits())
  })

  test('extra routes are added and removed, again without harm, and end at the limit', async () => {
    const { routers, extensions } = session.neutron
    assert.ok((await extensions.aliases(limits())).has('extraroute-atomic'))
    const route = (number: number) => ({ destination: `10.78.${number}.0/24`, nexthop: '10.77.0.9' })
    assert.deepEqual(await routers.addExtraRoutes(router.id, [route(1)], limits()), [route(1)])
    assert.deepEqual(await routers.addExtraRoutes(router.id, [route(1), route(2)], limits()), [route(1), route(2)])
    assert.deepEqual(await routers.removeExtraRoutes(router.id, [route(1), route(9)], limits()), [route(2)])
    const tooMany = Array.from({ length: 30 }, (_, index) => route(100 + index))
    await assert.rejects(
      routers.addExtraRoutes(router.id, tooMany, limits()),
      refused({ status: 400, type: 'RoutesExhausted', kind: 'exhausted' }),
    )
    await assert.rejects(
      routers.addExtraRoutes(router.id, [{ destination: '10.79.0.0/24', nexthop: '192.0.2.1' }], limits()),
      refused({ status: 400, type: 'InvalidRoutes', kind: 'permanent' }),
    )
    await assert.rejects(
      routers.removeInterface(router.id, subnet.id, limits()),
      refused({ type: 'RouterInterfaceInUseByRoute', kind: 'permanent' }),
    )
    assert.deepEqual(await routers.removeExtraRoutes(router.id, [route(2)], limits()), [])
    await assert.rejects(
      routers.addExtraRoutes('f'.repeat(32), [route(1)], limits()),
      refused({ status: 404, kind: 'missing' }),
    )
  })

  test('a floating IP leads to one address of a port, to none, and goes', async () => {
    const { ports, floatingIps } = session.neutron
    const fixed_ips = [
      { subnet_id: subnet.id, ip_address: '10.77.0.20' },
      { subnet_id: subnet.id, ip_address: '10.77.0.21' },
    ]
    const port = await ports.create({ network_id: network.id, name: 'floating', fixed_ips }, limits())
    const floating_network_id = project.demo['external_network_id']!
    const to = { port_id: port.id, fixed_ip_address: '10.77.0.21' }
    const made = await floatingIps.create({ floating_network_id, description: 'mooring', ...to }, limits())
    assert.equal(made.fixed_ip_address, '10.77.0.21')
    await assert.rejects(
      floatingIps.create({ floating_network_id, ...to }, limits()),
      refused({ status: 409, type: 'FloatingIPPortAlreadyAssociated', kind: 'permanent' }),
    )
    assert.equal((await floatingIps.disassociate(made.id, limits())).port_id, null)
    const moved = await floatingIps.associate(made.id, { ...to, fixed_ip_address: '10.77.0.20' }, limits())
    assert.equal(moved.fixed_ip_address, '10.77.0.20')
    assert.deepEqual(
      (await floatingIps.list({ port_id: port.id }, limits())).map(each => each.id),
      [made.id],
    )
    assert.equal(await floatingIps.delete(made.id, limits()), true)
    assert.equal(await floatingIps.get(made.id, limits()), undefined)
    await ports.delete(port.id, limits())
  })

  test('errors are classified as the table says', async () => {
    const { ports, networks, subnets } = session.neutron
    const port = await ports.create({ network_id: network.id, name: 'errors' }, limits())
    const small = await networks.create({ name: 'small' }, limits())
    const tiny = await subnets.create(
      { network_id: small.id, cidr: '10.77.9.0/30', ip_version: 4, enable_dhcp: false },
      limits(),
    )
    await ports.create({ network_id: small.id }, limits())
    const fixed = (ip_address: string) =>
      ports.update(port.id, { fixed_ips: [{ subnet_id: subnet.id, ip_address }] }, limits())
    const cases: [() => Promise<unknown>, Partial<OpenStackError>][] = [
      [
        () => ports.create({ network_id: small.id }, limits()),
        { type: 'IpAddressGenerationFailure', kind: 'exhausted' },
      ],
      [() => fixed('10.77.0.1'), { type: 'IpAddressAlreadyAllocated', kind: 'permanent' }],
      [() => fixed('192.0.2.1'), { type: 'InvalidIpForSubnet', kind: 'permanent' }],
      [() => fixed('10.77.0.300'), { type: 'HTTPBadRequest', kind: 'permanent' }],
      [() => ports.create({ network_id: 'f'.repeat(32) }, limits()), { type: 'NetworkNotFound', kind: 'missing' }],
      [
        () => ports.update(port.id, { fixed_ips: [{ subnet_id: 'f'.repeat(32) }] }, limits()),
        { type: 'SubnetNotFound', kind: 'missing' },
      ],
      [() => networks.delete(small.id, limits()), { type: 'NetworkInUse', kind: 'permanent' }],
      [
        () =>
          ports.update(
            port.id,
            { allowed_address_pairs: Array.from({ length: 11 }, (_, index) => ({ ip_address: `10.80.0.${index}` })) },
            limits(),
          ),
        { type: 'AllowedAddressPairExhausted', kind: 'exhausted' },
      ],
      [
        () => session.neutron.quotas.set(project.id, { port: 1 }, limits()),
        { type: 'PolicyNotAuthorized', kind: 'auth' },
      ],
      [
        () => ports.update(port.id, { 'binding:host_id': 'x' }, limits()),
        { type: 'PolicyNotAuthorized', kind: 'auth' },
      ],
      [() => session.nova.interfaces.list('f'.repeat(32), limits()), { type: 'itemNotFound', kind: 'missing' }],
    ]
    for (const [call, facts] of cases) await assert.rejects(call(), refused(facts))
    for (const each of await ports.list({ network_id: small.id }, limits())) await ports.delete(each.id, limits())
    assert.equal(await subnets.delete(tiny.id, limits()), true)
    assert.equal(await networks.delete(small.id, limits()), true)
    await ports.delete(port.id, limits())
  })

  test('every error of a service carries its request id', async () => {
    await assert.rejects(session.neutron.ports.create({ network_id: 'f'.repeat(32) }, limits()), (error: unknown) => {
      assert.match(String((error as OpenStackError).requestId), /^req-/)
      return true
    })
  })

  test('a service that is not there is transient', async () => {
    const away = openCloud({ ...project.password, endpoints: { network: 'http://127.0.0.1:9' } })
    await assert.rejects(
      away.neutron.ports.list({}, limits(2_000)),
      refused({ service: 'neutron', type: 'ConnectionFailed', kind: 'transient', effect: 'none' }),
    )
    await away.close()
  })

  test('Nova attaches a port to a server and detaches it', async () => {
    const { ports } = session.neutron
    const { interfaces, servers } = session.nova
    const boot = await ports.create({ network_id: network.id, name: 'boot' }, limits())
    const body = {
      server: {
        name: `mooring-test-${project.id.slice(0, 8)}`,
        flavorRef: project.demo['flavor_id'],
        imageRef: '',
        networks: [{ port: boot.id }],
        block_device_mapping_v2: [{ boot_index: 0, source_type: 'blank', destination_type: 'local', volume_size: 1 }],
      },
    }
    const { server } = (await project.compute('POST', '/servers', body)) as { server: { id: string } }
    try {
      while ((await servers.get(server.id, limits()))?.status === 'BUILD')
        await new Promise(resolve => setTimeout(resolve, 300))
      assert.equal((await servers.get(server.id, limits()))?.status, 'ACTIVE')
      assert.deepEqual(
        (await servers.list({ name: `^${body.server.name}$` }, limits())).map(each => each.id),
        [server.id],
      )
      const extra = await ports.create({ network_id: network.id, name: 'extra' }, limits())
      await interfaces.attach(server.id, { port_id: extra.id }, limits())
      assert.equal((await interfaces.waitUntilActive(server.id, extra.id, limits())).mac_addr, extra.mac_address)
      await assert.rejects(
        interfaces.attach(server.id, { port_id: extra.id }, limits()),
        refused({ status: 409, type: 'conflictingRequest', kind: 'conflict' }),
      )
      assert.equal((await interfaces.list(server.id, limits())).length, 2)
      await interfaces.detach(server.id, extra.id, limits())
      await interfaces.waitUntilDetached(server.id, extra.id, limits())
      await interfaces.detach(server.id, extra.id, limits())
      assert.equal(await ports.delete(extra.id, limits()), true)
    } finally {
      await project.compute('DELETE', `/servers/${server.id}`)
      while ((await servers.get(server.id, limits())) !== undefined)
        await new Promise(resolve => setTimeout(resolve, 300))
    }
  })
})
