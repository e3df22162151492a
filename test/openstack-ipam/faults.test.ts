// SPDX-License-Identifier: Apache-2.0

// tcnp-ipam while Keystone or Neutron is away, full, or answers in other ways than it should. Needs no root.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { listPortAddresses } from '#allocator'
import { list } from '#simulator'
import { asAdmin, limits, neutronList, portOf, setUp, smallNetwork } from './cloud.ts'
import { addressOf, nodeDirectory, nodeWithNic, startNode, until } from './node.ts'

test('STATUS says 50 while Keystone cannot be reached, and answers at once the second time', async t => {
  const { node, simulator, ipam } = await setUp(t)
  await simulator.close()
  const first = await node.call('STATUS', '', ipam)
  assert.equal(first.json.code, 50)
  const begin = performance.now()
  assert.equal((await node.call('STATUS', '', ipam)).json.code, 50)
  assert.ok(performance.now() - begin < 50)
})

test('STATUS of a node that was ready stays 0 while the cloud is away', async t => {
  const { node, simulator, ipam } = await setUp(t)
  assert.equal((await node.call('STATUS', '', ipam)).exitCode, 0)
  await simulator.close()
  // What was found is asked for again after ten seconds, in the background.
  const now = performance.now.bind(performance)
  t.mock.method(performance, 'now', () => now() + 11_000)
  assert.equal((await node.call('STATUS', '', ipam)).exitCode, 0)
  await new Promise(resolve => setTimeout(resolve, 1_000))
  assert.equal((await node.call('STATUS', '', ipam)).exitCode, 0)
})

test('STATUS of a node that was ready stays 0 while Keystone refuses its credentials, and an ADD says so', async t => {
  const { node, simulator, ipam } = await setUp(t, true, { reserve: 0 })
  assert.equal((await node.call('STATUS', '', ipam)).exitCode, 0)
  simulator.inject({ act: 'answer', method: 'POST', path: '/auth/tokens', status: 401, times: 0 })
  simulator.expireTokens()
  const now = performance.now.bind(performance)
  t.mock.method(performance, 'now', () => now() + 11_000)
  const refused = await node.call('ADD', 'c1', ipam)
  assert.match(`${refused.json.code} ${refused.json.msg}`, /^101 Cannot log in to cloud .*401/)
  const looks = () => simulator.requests('GET', /\/networks\?/).length
  const before = looks()
  // The first one has it looked at again, in the background; the later ones say what was found.
  assert.equal((await node.call('STATUS', '', ipam)).exitCode, 0)
  await until(() => looks() > before, 'the look')
  for (let round = 0; round < 5; round++) assert.equal((await node.call('STATUS', '', ipam)).exitCode, 0)
})

test('STATUS of a node whose agent is started again while the cloud is away stays 0, and the reserve serves', async t => {
  const { node, simulator, ipam, restart } = await setUp(t, true, { reserve: 2 })
  const before = neutronList(simulator).length
  assert.equal((await node.call('STATUS', '', ipam)).exitCode, 0)
  await until(() => neutronList(simulator).length === before + 2, 'the reserve')
  await simulator.close()
  const again = await restart()
  assert.equal((await again.call('STATUS', '', ipam)).exitCode, 0)
  assert.equal((await again.call('ADD', 'c1', ipam)).exitCode, 0)
})

test('DEL answers 0 while the cloud is away, and the release is done when it is back', async t => {
  const { node, simulator, ipam } = await setUp(t)
  const before = neutronList(simulator).length
  await node.call('ADD', 'c1', ipam)
  simulator.inject({ act: 'answer', status: 503, times: 12 })
  const begin = performance.now()
  assert.equal((await node.call('DEL', 'c1', ipam)).exitCode, 0)
  assert.ok(performance.now() - begin < 200)
  await until(() => neutronList(simulator).length === before, 'the removal', 20_000)
})

test('a full subnet is error 102 that says so, and the next DEL makes room for the next ADD', async t => {
  const { node, simulator, ipam } = await setUp(t, true)
  const { hostPort, cloud } = await smallNetwork(t, simulator)
  const config = asAdmin(ipam, simulator, { hostPort, reserve: 4 })
  const replies = await Promise.all(Array.from({ length: 7 }, (_, id) => node.call('ADD', `c${id}`, config)))
  const refused = replies.filter(each => each.exitCode !== 0)
  assert.equal(refused.length, 3)
  for (const each of refused) {
    assert.equal(each.json.code, 102)
    assert.match(each.json.msg!, /No more IP addresses available/)
  }
  const served = replies.findIndex(each => each.exitCode === 0)
  await node.call('DEL', `c${served}`, config)
  assert.equal((await node.call('ADD', 'late', config)).exitCode, 0)
  const port = await cloud.neutron.ports.get(hostPort, limits())
  assert.equal(port!.fixed_ips.length, 5)
})

test('a fault in every HTTP call of ADD in turn: one clear error or success, and after DEL nothing is left', async t => {
  const acts = [
    { act: 'answer', status: 500 },
    { act: 'answer', status: 429, headers: { 'retry-after': '0' } },
    { act: 'answer', status: 403 },
    { act: 'answer-after', status: 504 },
    { act: 'cut' },
    { act: 'cut-after' },
    { act: 'stale' },
    { act: 'hang-after', method: 'PUT' },
  ] as const
  const { node, simulator, ipam } = await setUp(t, false)
  const before = neutronList(simulator)
  simulator.forgetRequests()
  await node.call('ADD', 'probe', ipam)
  const calls = simulator.requests().length
  await node.call('DEL', 'probe', ipam)
  assert.ok(calls >= 5, `${calls} calls`)
  for (const each of acts)
    for (let skip = 0; skip < ('method' in each ? 1 : calls); skip++) {
      const directory = nodeDirectory(t)
      const { mac, ips } = portOf(simulator)
      const host = nodeWithNic(`${ips.find(ip => before.includes(ip))}/24`, mac)
      const process = () => startNode({ directory, host, longLived: false })
      await using alone = process()
      simulator.inject({ ...each, skip })
      const title = `${each.act} ${'status' in each ? each.status : ''} at call ${skip + 1}`
      const reply = await alone.call('ADD', 'c1', ipam, { timeoutMs: 8_000 })
      if (reply.exitCode !== 0) {
        assert.notEqual(reply.json.code, 999, `${title}: ${reply.stdout}`)
        assert.match(reply.json.msg!, /^Cannot /, title)
      }
      simulator.inject({ act: 'delay', times: 1 })
      assert.equal((await alone.call('DEL', 'c1', ipam)).exitCode, 0, title)
      await using next = process()
      assert.equal((await next.call('ADD', 'c2', ipam)).exitCode, 0, title)
      await next.call('DEL', 'c2', ipam)
      assert.deepEqual(neutronList(simulator), before, title)
      const known = listPortAddresses(alone.world.journal, portOf(simulator).id).map(each => each.address)
      assert.deepEqual(known.sort(), before, title)
    }
})

test('a process per call: a release that failed is finished by the next DEL, whosever it is', async t => {
  const { node, simulator, ipam } = await setUp(t, false)
  const before = neutronList(simulator)
  await node.call('ADD', 'c1', ipam)
  simulator.inject({ act: 'answer', status: 503, times: 30 })
  assert.equal((await node.call('DEL', 'c1', ipam, { timeoutMs: 2_000 })).exitCode, 0)
  assert.equal(neutronList(simulator).length, before.length + 1)
  const told =
    /^Released, but not told to the cloud yet: addresses of port \S+: Cannot .*503.*; the next call of any pod tries it again$/
  assert.ok(
    node.warnings.some(text => told.test(text)),
    node.warnings.join('\n'),
  )
  await until(
    async () => {
      await node.call('DEL', 'never', ipam)
      return neutronList(simulator).length === before.length
    },
    'the removal',
    20_000,
  )
})

for (const longLived of [false, true])
  for (const mode of ['mix', 'separate'])
    test(`${mode}: a release that finds no way to its cloud is told, and DEL succeeds (agent: ${longLived})`, async t => {
      const { node, simulator, ipam: usual, restart } = await setUp(t, longLived)
      const ipam = { ...usual, neutronConf: { ...usual.neutronConf, mode, idleMs: 0 } }
      const ports = () => list(simulator.state, 'ports').flatMap(port => port.fixed_ips)
      const before = ports()
      const given = addressOf(await node.call('ADD', 'c1', ipam))
      const next = await restart()
      // Since then somebody has taken the credentials out of the configuration.
      const bare = { neutronConf: ipam.neutronConf }
      assert.equal((await next.call('DEL', 'c1', bare)).exitCode, 0)
      const told = next.warnings.filter(text => text.startsWith('Released, but not told to the cloud yet: '))
      assert.match(told[0] ?? '', /: Cannot .*; the next call of any pod tries it again$/, next.warnings.join('\n'))
      assert.equal(told.length, 1, told.join('\n'))
      assert.ok(ports().some(each => each.ip_address === given))
      await until(
        async () => {
          assert.equal((await next.call('DEL', 'never', ipam)).exitCode, 0)
          return ports().length === before.length
        },
        'the removal',
        20_000,
      )
    })
