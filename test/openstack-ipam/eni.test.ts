// SPDX-License-Identifier: Apache-2.0

// tcnp-ipam in mode eni against the simulated OpenStack: a NIC of the server for each pod. Needs no root.

import assert from 'node:assert/strict'
import { hostname } from 'node:os'
import { dirname } from 'node:path'
import { test } from 'node:test'
import { listObjects } from '#allocator'
import { drainObjectPools, listOwnedPorts } from '#plugins'
import { adminCloud, mooring } from './cloud.ts'
import { type Reply, until } from './node.ts'
import { type ServerNode, serverNode } from './server-node.ts'

const macOf = (reply: Reply) => reply.json.interfaces![0]!.mac!
const ok = (reply: Reply) => {
  assert.equal(reply.exitCode, 0, reply.stdout)
  return reply
}
/** The states of the NICs in the journal. */
const states = ({ node }: ServerNode) =>
  listObjects(node.world.journal)
    .map(each => each.state)
    .sort()
const inStates = (it: ServerNode, ...wanted: string[]) =>
  until(() => states(it).join() === wanted.join(), `${wanted.join()} instead of ${states(it).join()}`)
/** What the cloud has with our mark is attached, and what the journal has. */
function assertNoLeak(it: ServerNode): void {
  const marked = it.marked()
  assert.deepEqual(
    marked.map(each => each.device_id).filter(id => id !== it.serverId),
    [],
  )
  assert.deepEqual(
    marked.map(each => each.id).sort(),
    listObjects(it.node.world.journal)
      .map(each => each.id)
      .sort(),
  )
}

for (const longLived of [true, false]) {
  const where = longLived ? 'agent' : 'one process per call'

  test(`ADD (${where}) gives a NIC of the server by its MAC; DEL gives it back`, async t => {
    const it = await serverNode(t, {}, { longLived })
    const reply = ok(await it.node.call('ADD', 'c1', it.ipam))
    const [port] = it.marked()
    assert.deepEqual(reply.json.interfaces, [{ name: 'eth1', mac: port!.mac_address }])
    const [ip] = reply.json.ips!
    assert.match(ip!.address, /^10\.10\.10\.\d+\/24$/)
    assert.deepEqual([ip!.gateway, ip!.interface], ['10.10.10.1', 0])
    assert.equal(port!.device_id, it.serverId)
    // In the pod.
    it.away.add(macOf(reply))
    ok(await it.node.call('CHECK', 'c1', it.ipam, { config: { prevResult: reply.json } }))
    it.away.clear()
    for (const container of ['c1', 'c1', 'never']) ok(await it.node.call('DEL', container, it.ipam))
    if (longLived) await inStates(it, 'free')
    else await until(() => it.marked().length === 0, 'the removal')
    assert.equal(it.attached().length, longLived ? 1 : 0)
  })
}

test('an ADD from the reserve makes no call to the cloud, and the reserve is made full again', async t => {
  const it = await serverNode(t, { reserve: 2 })
  ok(await it.node.call('STATUS', '', it.ipam))
  await inStates(it, 'free', 'free')
  it.simulator.inject({ act: 'cut', times: 0 })
  const begin = performance.now()
  const reply = ok(await it.node.call('ADD', 'c1', it.ipam))
  t.diagnostic(`warm ADD: ${(performance.now() - begin).toFixed(1)} ms`)
  assert.ok(it.attached().includes(macOf(reply)))
  await it.heal()
  await inStates(it, 'assigned', 'free', 'free')
})

test('8 ADDs at once with a cap of 4: four are served, four are told the numbers, and served when NICs come back', async t => {
  const it = await serverNode(t, { maxNics: 5 })
  const all = Array.from({ length: 8 }, (_, id) => `c${id}`)
  const replies = await Promise.all(all.map(id => it.node.call('ADD', id, it.ipam)))
  const served = all.filter((_, id) => replies[id]!.exitCode === 0)
  assert.equal(served.length, 4)
  assert.equal(new Set(replies.filter(each => each.exitCode === 0).map(macOf)).size, 4)
  for (const { exitCode, json } of replies)
    if (exitCode !== 0) {
      assert.equal(json.code, 102)
      assert.match(
        json.msg!,
        /server worker-1 \(\S+\) has 5 of at most 5 NICs \("neutronConf.maxNics"\): 4 for pods, 1 others/,
      )
    }
  assert.equal(it.attached().length, 4)
  const waiting = all.filter(id => !served.includes(id))
  for (const [index, id] of served.entries()) {
    ok(await it.node.call('DEL', id, it.ipam))
    await until(async () => (await it.node.call('ADD', waiting[index]!, it.ipam)).exitCode === 0, 'the next ADD')
  }
  assert.equal(it.attached().length, 4)
  assertNoLeak(it)
})

test('a quota without room for a NIC is error 102 with the numbers of quota, subnet and server; nothing is left', async t => {
  const it = await serverNode(t)
  const { neutron } = adminCloud(t, it.simulator)
  const [own] = await neutron.ports.list({ device_id: it.serverId }, it.limits())
  await neutron.quotas.set(own!.project_id!, { port: 1 }, it.limits())
  const { json } = await it.node.call('ADD', 'c1', it.ipam)
  assert.equal(json.code, 102)
  assert.match(
    json.msg!,
    /OverQuota.*quota of ports: \d+ of 1 used, subnet 10\.10\.10\.0\/24 .*: \d+ of \d+ addresses used/,
  )
  assert.match(
    json.msg!,
    /server worker-1 \(\S+\) has 1 of at most 16 NICs .*; next try in \d+ s, or as soon as one is released$/,
  )
  assert.deepEqual(it.marked(), [])
})

test('foreign NICs count, and one that goes makes room without a restart; they are never touched', async t => {
  const it = await serverNode(t, { maxNics: 2 })
  const network = it.simulator.demo().network_id
  const foreign = await it.cloud.nova.interfaces.attach(it.serverId, { net_id: network }, it.limits())
  const refused = await it.node.call('ADD', 'c1', it.ipam)
  assert.equal(refused.json.code, 102)
  assert.match(refused.json.msg!, /has 2 of at most 2 NICs .*: 0 for pods, 2 others/)
  assert.deepEqual(it.attached(), [foreign.mac_addr])
  const status = await it.node.call('STATUS', '', it.ipam)
  assert.equal(status.json.code, 50)
  assert.match(status.json.msg!, /2 of at most 2 NICs/)
  await it.cloud.nova.interfaces.detach(it.serverId, foreign.port_id, it.limits())
  await until(async () => (await it.node.call('ADD', 'c1', it.ipam)).exitCode === 0, 'a NIC')
})

test('the flavour says how many NICs there may be; a hypervisor without a slot is an error with the numbers', async t => {
  const it = await serverNode(t, {}, { maxNics: 2 })
  const flavors = it.simulator.state.rows.flavors.live
  const [id, flavor] = [...flavors][0]!
  flavors.set(id, { ...flavor, extra_specs: { 'mooring:max_nics': '3' } })
  ok(await it.node.call('ADD', 'c1', it.ipam))
  const full = await it.node.call('ADD', 'c2', it.ipam)
  assert.match(
    full.json.msg!,
    /Failed to attach network adapter .* 2 of at most 3 NICs \("mooring:max_nics" of its flavour\)/,
  )
  it.simulator.settings.maxNics = 28
  await until(async () => (await it.node.call('ADD', 'c2', it.ipam)).exitCode === 0, 'a slot')
  const capped = await it.node.call('ADD', 'c3', it.ipam)
  assert.match(capped.json.msg!, /3 of at most 3 NICs/)
  assertNoLeak(it)
})

for (const [what, injection] of [
  ['the port', { act: 'cut-after', method: 'POST', path: '/ports$' }],
  ['the attachment', { act: 'cut-after', method: 'POST', path: 'os-interface' }],
  ['the attachment, by a 500,', { act: 'answer-after', status: 500, method: 'POST', path: 'os-interface' }],
] as const)
  test(`the lost answer of ${what} leaves no second NIC`, async t => {
    const it = await serverNode(t)
    it.simulator.inject(injection)
    ok(await it.node.call('ADD', 'c1', it.ipam))
    assert.equal(it.attached().length, 1)
    assertNoLeak(it)
  })

test('whose attachment was not carried out, however often it was asked for, waits for the next one', async t => {
  const it = await serverNode(t)
  // Every try of the first; the second goes through.
  it.simulator.inject({ act: 'cut', method: 'POST', path: 'os-interface', times: 3 })
  ok(await it.node.call('ADD', 'c1', it.ipam, { timeoutMs: 15_000 }))
  await until(() => it.marked().length === 1, 'the removal of the port of the first')
  assertNoLeak(it)
})

test('a port whose attachment was never carried out is removed, by the next process too', async t => {
  const it = await serverNode(t)
  it.simulator.inject({ act: 'cut', method: 'POST', path: 'os-interface', times: 0 })
  const reply = await it.node.call('ADD', 'c1', it.ipam, { timeoutMs: 1_500 })
  assert.equal(reply.json.code, 11)
  await it.restart()
  await it.heal()
  ok(await it.node.call('ADD', 'c2', it.ipam))
  await until(() => it.marked().every(each => each.device_id === it.serverId), 'the removal', 15_000)
  await until(() => it.marked().length === 1, 'one NIC')
  assertNoLeak(it)
})

test('a NIC whose link does not come is told, kept from all, and used once its link is there', async t => {
  const it = await serverNode(t)
  const attached = it.attached
  const hide = setInterval(() => {
    for (const mac of attached()) it.away.add(mac)
  }, 1)
  const reply = await it.node.call('ADD', 'c1', it.ipam)
  clearInterval(hide)
  const [port] = it.marked()
  assert.equal(reply.json.code, 102)
  for (const word of [it.serverId, port!.id, port!.mac_address, 'acpiphp'])
    assert.ok(reply.json.msg!.includes(word), `${word} in ${reply.json.msg}`)
  const [broken] = listObjects(it.node.world.journal)
  assert.deepEqual([broken!.state, broken!.id], ['quarantined', port!.id])
  const { output } = await mooring('ip', 'list', '--data-dir', dirname(it.node.world.journal.path))
  assert.match(output, /quarantined/)
  assert.match(output, new RegExp(`mooring: port ${port!.id} .* no link of the node has this MAC`))
  it.away.clear()
  await it.restart()
  ok(await it.node.call('STATUS', '', it.ipam))
  await inStates(it, 'free')
  assert.equal(macOf(ok(await it.node.call('ADD', 'c1', it.ipam))), port!.mac_address)
})

test('a NIC in the reserve that has lost its link is passed over', async t => {
  const it = await serverNode(t, { reserve: 1 })
  ok(await it.node.call('STATUS', '', it.ipam))
  await inStates(it, 'free')
  const [lost] = it.attached()
  it.away.add(lost!)
  const reply = ok(await it.node.call('ADD', 'c1', it.ipam))
  assert.notEqual(macOf(reply), lost)
  assert.equal(listObjects(it.node.world.journal).find(each => each.mac === lost)!.state, 'quarantined')
})

test('a restart keeps NICs and leases; after a reboot the NICs are the next pods’', async t => {
  const it = await serverNode(t, { reserve: 1 })
  const first = macOf(ok(await it.node.call('ADD', 'c1', it.ipam)))
  await inStates(it, 'assigned', 'free')
  await it.restart()
  const second = macOf(ok(await it.node.call('ADD', 'c2', it.ipam)))
  assert.notEqual(first, second)
  await inStates(it, 'assigned', 'assigned', 'free')
  const before = it.attached().sort()
  await it.restart('boot-2')
  const macs = [
    macOf(ok(await it.node.call('ADD', 'c3', it.ipam))),
    macOf(ok(await it.node.call('ADD', 'c4', it.ipam))),
  ]
  assert.equal(new Set(macs).size, 2)
  for (const mac of macs) assert.ok(before.includes(mac), 'attached in the boot before')
  await inStates(it, 'assigned', 'assigned', 'free')
  assertNoLeak(it)
})

test('a NIC that is detached is out of the server before its port goes, also when Nova drops the request', async t => {
  const it = await serverNode(t, {}, { longLived: false })
  ok(await it.node.call('ADD', 'c1', it.ipam))
  // As Nova does for a server whose agent is away: accepted, and nothing happens.
  it.simulator.inject({ act: 'answer', status: 202, method: 'DELETE', path: 'os-interface' })
  ok(await it.node.call('DEL', 'c1', it.ipam, { timeoutMs: 1_000 }))
  assert.equal(it.marked().length, 1)
  ok(await it.node.call('DEL', 'c1', it.ipam))
  assert.equal(it.marked().length, 0)
  const order = it.simulator.requests('DELETE').map(({ path }) => path.replace(/^.*\/(os-interface|ports)\/.*$/, '$1'))
  assert.deepEqual(order, ['os-interface', 'os-interface', 'ports'])
})

test('a NIC above the reserve is detached when it is idle, and the reserve by drain', async t => {
  const it = await serverNode(t, { reserve: 1, idleMs: 50 })
  for (const container of ['c1', 'c2']) ok(await it.node.call('ADD', container, it.ipam))
  await inStates(it, 'assigned', 'assigned', 'free')
  for (const container of ['c1', 'c2']) ok(await it.node.call('DEL', container, it.ipam))
  await inStates(it, 'free')
  await until(() => it.attached().length === 1, 'the detachments')
  assertNoLeak(it)
  const [drained] = await drainObjectPools(it.node.world, it.limits())
  assert.deepEqual([drained!.removed.length, drained!.error], [1, undefined])
  assert.deepEqual([it.attached(), it.marked()], [[], []])
})

test('the ports of a node that is gone are found by their owner mark', async t => {
  const it = await serverNode(t, { reserve: 1, cluster: 'east', node: 'n1' })
  ok(await it.node.call('ADD', 'c1', it.ipam))
  await inStates(it, 'assigned', 'free')
  await it.node[Symbol.asyncDispose]()
  // As Nova does when the server is deleted: ports that it did not make stay, and are nobody's.
  for (const { id } of it.marked()) await it.cloud.nova.interfaces.detach(it.serverId, id, it.limits())
  await until(() => it.attached().length === 0, 'the detachments')
  const own = { cluster: 'east', node: 'n1' }
  const found = await listOwnedPorts(it.cloud.neutron, own, ['eni'], it.limits())
  assert.deepEqual(
    found.map(({ id, device_id }) => [id, device_id]).sort(),
    it
      .marked()
      .map(({ id }) => [id, ''])
      .sort(),
  )
  assert.equal(found.length, 2)
  assert.deepEqual(await listOwnedPorts(it.cloud.neutron, { ...own, node: 'n2' }, ['eni'], it.limits()), [])
})

test('the description in Neutron says whose a NIC is', async t => {
  const it = await serverNode(t)
  const text = () => it.marked()[0]!.description
  ok(await it.node.call('ADD', 'c1', it.ipam))
  const ours = `mooring cluster=mooring node=${hostname()}`
  await until(() => text() === `${ours} container=c1 interface=eth0 network=cni0`, 'the owner')
  ok(await it.node.call('DEL', 'c1', it.ipam))
  await until(() => text() === ours, 'nobody')
})

test('a second ADD of an attachment is error 104 and takes nothing from the first', async t => {
  const it = await serverNode(t, { reserve: 1 })
  ok(await it.node.call('ADD', 'c1', it.ipam))
  await inStates(it, 'assigned', 'free')
  assert.equal((await it.node.call('ADD', 'c1', it.ipam)).json.code, 104)
  await inStates(it, 'assigned', 'free')
})

test('a caller who goes away while the link is awaited leaves a NIC for the next', async t => {
  const it = await serverNode(t, { reserve: 1, plugMs: 3_000 })
  ok(await it.node.call('STATUS', '', it.ipam))
  await inStates(it, 'free')
  const [mac] = it.attached()
  it.away.add(mac!)
  assert.equal((await it.node.call('ADD', 'c1', it.ipam, { timeoutMs: 100 })).json.code, 11)
  it.away.clear()
  await inStates(it, 'free', 'free')
})

test('a chosen address and MAC are those of the NIC; an existing port is refused', async t => {
  const it = await serverNode(t, { allow: ['address', 'mac', 'port'] })
  const choose = (cni: object) => ({ config: { args: { cni } } })
  const refused = await it.node.call('ADD', 'c0', it.ipam, choose({ port: 'another' }))
  assert.equal(refused.json.code, 7)
  assert.match(refused.json.msg!, /"args.cni.port" says in mode "eni"/)
  const reply = ok(await it.node.call('ADD', 'c1', it.ipam, choose({ ips: ['10.10.10.77'], mac: 'fa:16:3e:00:00:77' })))
  assert.deepEqual([reply.json.ips![0]!.address, macOf(reply)], ['10.10.10.77/24', 'fa:16:3e:00:00:77'])
  ok(await it.node.call('DEL', 'c1', it.ipam))
  await until(() => it.marked().length === 0, 'the removal: nobody else asked for it')
})

test('CHECK names a port that was detached, and one that is gone', async t => {
  const it = await serverNode(t)
  const reply = ok(await it.node.call('ADD', 'c1', it.ipam))
  const check = async () => (await it.node.call('CHECK', 'c1', it.ipam, { config: { prevResult: reply.json } })).json
  const [port] = it.marked()
  await it.cloud.nova.interfaces.detach(it.serverId, port!.id, it.limits())
  await until(() => it.attached().length === 0, 'the detachment')
  const detached = await check()
  assert.equal(detached.code, 103)
  assert.match(detached.msg!, new RegExp(`port ${port!.id} is not attached to server worker-1`))
  await it.cloud.neutron.ports.delete(port!.id, it.limits())
  assert.match((await check()).msg!, new RegExp(`port ${port!.id} does not exist`))
})

test('an idle NIC of another network gives up its slot', async t => {
  const it = await serverNode(t, { maxNics: 2, reserve: 1 })
  ok(await it.node.call('STATUS', '', it.ipam))
  await inStates(it, 'free')
  const { openstackConf, neutronConf } = it.ipam
  const network = await it.cloud.neutron.networks.create({ name: 'second' }, it.limits())
  await it.cloud.neutron.subnets.create({ network_id: network.id, cidr: '10.79.0.0/24', ip_version: 4 }, it.limits())
  const other = { openstackConf, neutronConf: { ...neutronConf, networks: ['second'], reserve: 0 } }
  await until(async () => (await it.node.call('ADD', 'c1', other)).exitCode === 0, 'a NIC of the other network')
  assert.equal(it.attached().length, 1)
})

test('pods of two networks at once have their NICs attached one by one, and not one above the cap', async t => {
  const it = await serverNode(t, { maxNics: 4 })
  const network = await it.cloud.neutron.networks.create({ name: 'second' }, it.limits())
  await it.cloud.neutron.subnets.create({ network_id: network.id, cidr: '10.79.0.0/24', ip_version: 4 }, it.limits())
  const { openstackConf, neutronConf } = it.ipam
  const other = { openstackConf, neutronConf: { ...neutronConf, networks: ['second'] } }
  let attachedMax = 0
  const watch = () => {
    attachedMax = Math.max(attachedMax, it.attached().length)
  }
  it.simulator.state.listeners.add(watch)
  const replies = await Promise.all(
    Array.from({ length: 8 }, (_, id) => it.node.call('ADD', `c${id}`, id % 2 === 0 ? it.ipam : other)),
  )
  it.simulator.state.listeners.delete(watch)
  assert.equal(replies.filter(each => each.exitCode === 0).length, 3)
  assert.equal(attachedMax, 3)
  assertNoLeak(it)
})

test('a NIC that an old answer does not show is detached, and its port removed, all the same', async t => {
  const it = await serverNode(t, {}, { longLived: false })
  ok(await it.node.call('ADD', 'c1', it.ipam))
  assert.equal(it.attached().length, 1)
  it.simulator.inject({ act: 'stale', method: 'GET', path: '/ports/', times: 1 })
  ok(await it.node.call('DEL', 'c1', it.ipam))
  await until(() => listObjects(it.node.world.journal).length === 0, 'the release')
  assert.deepEqual(it.marked(), [])
  assert.deepEqual(it.attached(), [])
})
