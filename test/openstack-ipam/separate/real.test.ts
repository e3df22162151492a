// SPDX-License-Identifier: Apache-2.0

// tcnp-ipam in mode separate against the real Neutron of lab/openstack, on its demo network. Needs no data plane and no root;
// leaves no port.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { listObjects } from '#allocator'
import { deadlineIn } from '#base'
import { type CloudSession, loadCloud, openCloud, type Port } from '#openstack'
import { addressOf, nodeDirectory, nodeWithNic, startNode, until } from '../node.ts'

const options = {
  skip: process.env['OSLAB_DEMO_JSON'] ? false : 'no lab: eval "$(lab/openstack env)"',
  timeout: 180_000,
}
const limits = () => ({ deadline: deadlineIn(60_000) })
const NODE = 'mooring-separate-test'

let networkId: string
let cloud: CloudSession

const ports = (): Promise<Port[]> =>
  cloud.neutron.ports.list({ device_owner: 'mooring:separate', device_id: NODE }, limits())

before(async () => {
  if (options.skip !== false) return
  networkId = JSON.parse(readFileSync(process.env['OSLAB_DEMO_JSON']!, 'utf8')).network_id
  cloud = openCloud(await loadCloud('oslab'))
})

after(async () => {
  if (options.skip !== false) return
  for (const { id } of await ports()) await cloud.neutron.ports.delete(id, limits())
  await cloud.close()
})

const ipam = (more: object = {}) => ({
  cloud: 'oslab',
  neutronConf: { mode: 'separate', node: NODE, networks: [networkId], reserve: 0, coolDownMs: 0, idleMs: 0, ...more },
})

test(
  'eight ADDs at once are eight ports with their owners, made together; after DEL none is left',
  options,
  async t => {
    await using node = startNode({
      directory: nodeDirectory(t),
      host: nodeWithNic('', 'fa:16:3e:00:00:09'),
      longLived: true,
    })
    const names = Array.from({ length: 8 }, (_, id) => `c${id}`)
    const begin = performance.now()
    const replies = await Promise.all(names.map(name => node.call('ADD', name, ipam())))
    t.diagnostic(`${Math.round(performance.now() - begin)} ms`)
    for (const { exitCode, stdout } of replies) assert.equal(exitCode, 0, stdout)
    const made = await ports()
    assert.deepEqual(made.map(each => each.fixed_ips[0]!.ip_address).sort(), replies.map(addressOf).sort())
    const aliases = await cloud.neutron.extensions.aliases(limits())
    const tags = ['mooring', 'mooring:cluster=mooring', `mooring:node=${NODE}`]
    const kept = aliases.has('tag-ports-during-bulk-creation') ? tags : []
    for (const port of made) {
      assert.deepEqual([...port.tags!].sort(), kept)
      assert.match(
        port.description!,
        /^mooring cluster=mooring node=mooring-separate-test container=c\d interface=eth0 network=cni0$/,
      )
    }
    assert.equal((await node.call('CHECK', 'c1', ipam(), { config: { prevResult: replies[1]!.json } })).exitCode, 0)
    for (const name of names) assert.equal((await node.call('DEL', name, ipam())).exitCode, 0)
    await until(async () => (await ports()).length === 0, 'the removal', 60_000)
    await until(() => listObjects(node.world.journal).length === 0, 'the record of it')
  },
)

test('a port from the reserve says whose it is a moment later, and is the next pod’s after DEL', options, async t => {
  const conf = ipam({ reserve: 1, idleMs: 60_000, max: 2 })
  await using node = startNode({
    directory: nodeDirectory(t),
    host: nodeWithNic('', 'fa:16:3e:00:00:09'),
    longLived: true,
  })
  await until(async () => (await node.call('STATUS', '', conf)).exitCode === 0, 'a ready cloud', 60_000)
  await until(async () => (await ports()).length === 1, 'the reserve', 30_000)
  const begin = performance.now()
  const first = await node.call('ADD', 'c1', conf)
  t.diagnostic(`warm ADD: ${(performance.now() - begin).toFixed(1)} ms`)
  assert.equal(first.exitCode, 0, first.stdout)
  await until(
    async () => (await ports()).some(each => each.description!.includes('container=c1 ')),
    'the description',
    30_000,
  )
  await until(async () => (await ports()).length === 2, 'the reserve again', 30_000)
  const second = await node.call('ADD', 'c2', conf)
  assert.equal((await node.call('ADD', 'c3', conf)).json.code, 102)
  await node.call('DEL', 'c2', conf)
  const third = await node.call('ADD', 'c3', conf)
  assert.equal(addressOf(third), addressOf(second), third.stdout)
})
