// SPDX-License-Identifier: Apache-2.0

// Goal: what an operator does to addresses by hand (`mooring ip list | free | reserve | adopt | release`) is right beside a
// running agent and without one, and says why where it cannot be done. Needs no root.

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { openJournal, putAttachment } from '#allocator'
import { parseIp, parsePrefix, prefixContains } from '#base'
import { readBootId } from '#host'
import { endQuarantine, listLeases, type PoolReport, type QuotaReport, readPools, reserveAhead } from '#inspect'
import { openSessions } from '#plugins'
import { find } from '#simulator'
import { asAdmin, isPut, limits, mooring, portOf, setUp, smallNetwork } from './cloud.ts'
import { addressOf, until } from './node.ts'

/** A node, a network list with its configuration, and the command for it. */
async function nodeByHand(t: TestContext, longLived: boolean, neutronConf: object) {
  const made = await setUp(t, longLived, neutronConf, { bootId: readBootId() })
  const { directory, simulator } = made
  const conflistFor = (ipam: object) => {
    const list = {
      name: 'cni0',
      cniVersion: '1.0.0',
      plugins: [{ type: 'veth-route', ipam: { type: 'tcnp-ipam', ...ipam } }],
    }
    writeFileSync(join(directory, 'net.conflist'), JSON.stringify(list))
  }
  conflistFor(made.ipam)
  const named = ['--conflist', join(directory, 'net.conflist')]
  const ip = (verb: string, ...more: string[]) => mooring('ip', verb, ...more, '--data-dir', directory)
  const added = () => portOf(simulator).ips.length - 1
  return { ...made, conflistFor, named, ip, added, journal: made.node.world.journal }
}

const freeOf = (journal: Parameters<typeof listLeases>[0]) =>
  listLeases(journal).filter(({ state }) => state === 'free').length

test('ip reserve: fills the reserve beside the agent, which keeps it up until the time is over', async t => {
  const { node, ipam, simulator, ip, named, added, journal } = await nodeByHand(t, true, { reserve: 1 })
  await node.call('ADD', 'c1', ipam)
  await until(() => added() === 2, 'a reserve of one')
  const { status, output } = await ip('reserve', '5', ...named, '--for', '10')
  assert.equal(status, 0, output)
  assert.match(output, /^port \S+: 5 free of subnet \S+, kept until 20\S+Z$/m)
  assert.equal(added(), 6)
  // What was made by hand is the agent's to give, without a call, and it makes another for it.
  const puts = () => simulator.requests().filter(isPut).length
  const before = puts()
  await node.call('ADD', 'c2', ipam)
  assert.equal(puts(), before)
  await until(() => added() === 7 && freeOf(journal) === 5, 'five free again')
  const ended = await ip('reserve', '0', ...named)
  assert.equal(ended.status, 0, ended.output)
  assert.deepEqual([added(), freeOf(journal)], [3, 1])
})

test('ip reserve: ends by itself, and the agent gives back what is too much', async t => {
  const { node, ipam, added, journal, directory } = await nodeByHand(t, true, { reserve: 0 })
  await node.call('ADD', 'c1', ipam)
  await until(() => added() === 1, 'one address')
  using own = openJournal(directory)
  await reserveAhead({ ...node.world, journal: own }, { count: 3, untilMs: Date.now() + 1_500 }, limits())
  assert.equal(freeOf(journal), 3)
  await node.call('ADD', 'c2', ipam)
  await until(() => added() === 2, 'the end of the reserve')
})

test('ip reserve: processes for one call use it up and leave the rest', async t => {
  const { node, ipam, directory, named, ip, added } = await nodeByHand(t, false, {})
  const first = await ip('reserve', '3', ...named)
  assert.equal(first.status, 1)
  assert.match(first.output, /Cannot make a reserve: the journal knows no pool yet/)
  await node.call('ADD', 'c1', ipam)
  assert.equal(added(), 1)
  const { status, output } = await ip('reserve', '3', ...named)
  assert.equal(status, 0, output)
  await node.call('ADD', 'c2', ipam)
  await node.call('DEL', 'c1', ipam)
  using journal = openJournal(directory)
  // One was used, and the released one filled the gap.
  assert.deepEqual([added(), freeOf(journal)], [4, 3])
})

test('ip reserve: says why there are no more, and what it does not take', async t => {
  const { node, ipam, simulator, conflistFor, named, ip, journal } = await nodeByHand(t, true, { reserve: 0 })
  const { hostPort } = await smallNetwork(t, simulator)
  const small = asAdmin(ipam, simulator, { hostPort, networks: [] })
  conflistFor(small)
  await node.call('ADD', 'c1', small)
  const { status, output } = await ip('reserve', '9', ...named)
  assert.equal(status, 1)
  assert.match(output, /^mooring: Cannot update port .*: No more IP addresses available .*IpAddressGenerationFailure/m)
  assert.equal(freeOf(journal), 0)
  const wrong = await ip('reserve', '-1').then(each => each.output)
  assert.match(wrong, /unknown option|want 0 to 256/)
  assert.match((await ip('reserve', '300')).output, /the number of addresses is "300", want 0 to 256/)
})

test('ip reserve and free: of whole ports too', async t => {
  const separate = { mode: 'separate', node: 'worker-1', reserve: 1, idleMs: 0 }
  const { node, ipam, named, ip, journal, directory } = await nodeByHand(t, true, separate)
  await node.call('ADD', 'c1', ipam)
  await until(() => freeOf(journal) === 1, 'a reserve')
  const { status, output } = await ip('reserve', '4', ...named)
  assert.equal(status, 0, output)
  assert.match(output, /^ports of network .*: 4 free, kept until /m)
  assert.equal(freeOf(journal), 4)
  const free = await ip('free', ...named)
  assert.match(free.output, /^ports of network .* +10\.10\.10\.0\/24 +4 +0 +4 +1 +0 +0 +-$/m)
  assert.match(free.output, /^ports of network .* keeps 4 free until /m)
  using own = openJournal(directory)
  await reserveAhead({ ...node.world, journal: own }, { count: 0, untilMs: 0 }, limits())
  await until(() => freeOf(journal) === 1, 'the end of it')

  // Who leaves the node for good wants none of it.
  await ip('reserve', '3', ...named)
  await node.call('DEL', 'c1', ipam)
  await node[Symbol.asyncDispose]()
  const drained = await mooring('drain', '--data-dir', directory, ...named)
  assert.equal(drained.status, 0, drained.output)
  assert.deepEqual(listLeases(own), [])
})

test('ip reserve: of addresses that pass by pairs, with their pairs', async t => {
  const pairs = { binding: 'allowed_address_pairs', blockSize: 4, reserve: 0, node: 'worker-1' }
  const { node, ipam, named, ip, journal, simulator } = await nodeByHand(t, true, pairs)
  await node.call('ADD', 'c1', ipam)
  const { status, output } = await ip('reserve', '6', ...named)
  assert.equal(status, 0, output)
  const free = listLeases(journal).filter(({ state }) => state === 'free')
  assert.ok(free.length >= 6, output)
  const { allowed_address_pairs } = find(simulator.state, 'ports', portOf(simulator).id)!
  const passing = allowed_address_pairs.map(({ ip_address }) =>
    parsePrefix(ip_address.includes('/') ? ip_address : `${ip_address}/32`),
  )
  for (const { address } of free)
    assert.ok(
      passing.some(prefix => prefixContains(prefix, parseIp(address!))),
      address!,
    )
  const ended = await ip('reserve', '0', ...named)
  assert.equal(ended.status, 0, ended.output)
})

test('ip free: counts what a pod could have, here and in Neutron', async t => {
  const { node, ipam, simulator, conflistFor, named, ip, journal, directory } = await nodeByHand(t, true, {
    reserve: 0,
  })
  const { hostPort } = await smallNetwork(t, simulator)
  const small = asAdmin(ipam, simulator, { hostPort, networks: [], reserve: 1 })
  conflistFor(small)
  await node.call('ADD', 'c1', small)
  await until(() => freeOf(journal) === 1, 'a reserve')
  const { status, output } = await ip('free', ...named)
  assert.equal(status, 0, output)
  assert.match(output, /^POOL +SUBNET +FREE +SOON +RESERVE +ASSIGNED +MOVING +QUARANTINED +LEFT IN SUBNET$/m)
  // The gateway is outside the allocation pool; host, pod and reserve have three of five.
  assert.match(output, new RegExp(`^port ${hostPort} +10\\.77\\.0\\.0/29 +1 +0 +1 +1 +0 +0 +2 of 5$`, 'm'))
  assert.match(output, /^project \S+ of cloud \S+ has \d+ of \d+ ports$/m)

  // A member is not told how full a subnet is; and without credentials the journal's part stands alone.
  await using clouds = openSessions({ dataDir: directory, warn: () => {} })
  const warnings: string[] = []
  const alone = await readPools(journal, clouds, limits(), text => warnings.push(text))
  assert.match(warnings[0]!, /credentials stand in no file; name the network list: --conflist FILE$/)
  assert.deepEqual([alone.pools[0]!.free, alone.pools[0]!.cloud, alone.quotas], [1, null, []])
  await node.call('ADD', 'c2', ipam)
  const member = await readPools(journal, node.world.clouds, limits(), text => warnings.push(text))
  const demo = member.pools.find(({ pool }: PoolReport) => pool === portOf(simulator).id)!
  assert.deepEqual(warnings.slice(1), [])
  assert.deepEqual([demo.cloud, demo.assigned, demo.subnet!.cidr], [null, 1, '10.10.10.0/24'])
  assert.ok(member.quotas.some(({ used }: QuotaReport) => used > 0))
})

test('ip list: in the order of the addresses, by state, network and pod, and for machines', async t => {
  const { node, ipam, ip, journal, named } = await nodeByHand(t, true, { reserve: 0 })
  const pod = addressOf(await node.call('ADD', 'c1', ipam))
  await node.call('ADD', 'c2', ipam)
  putAttachment(journal, {
    ...{ network: 'cni0', containerId: 'c1', ifName: 'eth0', type: 'veth-route', state: 'ready', traces: '{}' },
    ...{ bootId: readBootId(), netns: '/run/netns/c1', netnsDevice: 1, netnsInode: 2 },
    config: JSON.stringify({ path: [], args: 'K8S_POD_NAMESPACE=demo;K8S_POD_NAME=redis-0', config: {} }),
  })
  const { output } = await ip('list')
  assert.match(output, /^ADDRESS +STATE +SINCE +PORT +KIND +POD +OWNER\n/)
  assert.match(output, /^10\.10\.10\.11 +foreign +\d+s /m)
  const order = [...output.matchAll(/^10\.10\.10\.(\d+) /gm)].map(each => Number(each[1]))
  assert.deepEqual(
    order,
    order.toSorted((a, b) => a - b),
  )
  assert.match(output, new RegExp(`^${pod} +assigned +\\d+s +\\S+ +address +demo/redis-0 +cni0 c1 eth0$`, 'm'))
  const shown = JSON.parse((await ip('list', '--json', '--pod', 'redis-0', '--state', 'assigned', 'free')).output)
  assert.deepEqual(
    shown.map(({ address, holder }: { address: string; holder: object }) => [address, holder]),
    [[pod, { network: 'cni0', containerId: 'c1', ifName: 'eth0', pod: 'demo/redis-0' }]],
  )
  const typo = await ip('list', '--state', 'quarantine')
  assert.equal(typo.status, 1)
  assert.match(typo.output, /'quarantine' is invalid. Allowed choices are foreign, .*quarantined/)
  const refused = await ip('release', pod, ...named)
  assert.equal(
    refused.output,
    `mooring: Cannot release ${pod}: it is assigned (eth0 of demo/redis-0 in network cni0), not in quarantine. See mooring ip list\n`,
  )
})

test('ip adopt and release: of addresses, taken off the port at once, and of whole ports', async t => {
  const { node, ipam, ip, named, added, simulator, journal } = await nodeByHand(t, true, { reserve: 2 })
  await node.call('ADD', 'c1', ipam)
  await until(() => added() === 3, 'a reserve')
  const [quarantined] = listLeases(journal).filter(({ state }) => state === 'free')
  const { address, portId } = quarantined!
  journal.sql("UPDATE port_address SET state = 'quarantined' WHERE address = ?").run(address)
  const { status, output } = await ip('release', address!, ...named)
  assert.equal(status, 0, output)
  assert.match(output, new RegExp(`^${address} is off port ${portId}$`, 'm'))
  assert.ok(!portOf(simulator).ips.includes(address!))
  assert.throws(() => endQuarantine(journal, 'adopt', address!), /the journal does not know it\. See mooring ip list/)

  // Two networks may have the same addresses.
  for (const port of ['port-8', 'port-9']) {
    journal
      .sql('INSERT INTO port SELECT ?, access, settings, seen_boot_id, revision FROM port WHERE port_id = ?')
      .run(port, portId)
    journal
      .sql(
        `INSERT INTO port_address SELECT ?, address, subnet_id, 'quarantined', '', '', '', '', NULL, 0, 0, 0
         FROM port_address WHERE state = 'assigned'`,
      )
      .run(port)
  }
  const both = listLeases(journal).find(each => each.portId === 'port-8')!.address!
  assert.throws(() => endQuarantine(journal, 'adopt', both), /on the ports port-8, port-9; name one of them: --port$/)
  assert.equal((await ip('adopt', both, '--port', 'port-9', ...named)).status, 0)
  const states = listLeases(journal)
    .filter(each => each.address === both)
    .map(each => [each.portId, each.state])
  assert.deepEqual(
    states.sort(),
    [
      [portId, 'assigned'],
      ['port-8', 'quarantined'],
      ['port-9', 'free'],
    ].sort(),
  )

  const mark = 'a'.repeat(20)
  const row = {
    ...{ mark, pool: 'p', id: 'port-1', state: 'quarantined', network: '', container_id: '', if_name: '', boot_id: '' },
    ...{ addresses: '[{"subnetId":"s","address":"10.10.10.200"}]', mac: '', detail: '', special: '', described: '' },
    ...{ flaw: '', usable_ms: 0, missing_ms: 0, changed_ms: 0 },
  }
  const columns = Object.keys(row)
  journal.sql(`INSERT INTO object (${columns}) VALUES (${columns.map(() => '?')})`).run(...Object.values(row))
  assert.equal(endQuarantine(journal, 'adopt', `mooring-${mark}`).portId, 'port-1')
  assert.equal(listLeases(journal).find(each => each.mark === mark)!.state, 'free')
  assert.throws(() => endQuarantine(journal, 'release', '10.10.10.200'), /it is free, not in quarantine/)
})
