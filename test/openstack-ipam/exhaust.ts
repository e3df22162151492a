// SPDX-License-Identifier: Apache-2.0

// One pod more than there is room for: it is told the numbers, and has what the next one gives back, without a restart.

import assert from 'node:assert/strict'
import { deadlineIn } from '#base'
import type { CloudSession } from '#openstack'
import { addressOf, type Node, type Reply, until } from './node.ts'

export type Limit = {
  /** Pods for which there is room. */
  readonly fits: number
  /** What the one without room is told. */
  readonly message: RegExp
  /** @default 30 s */
  readonly nextMs?: number
}

/** Uses up what `ipam` gives to pods, shows what the next one meets, and gives all back. */
export async function exhaust(node: Node, ipam: object, { fits, message, nextMs = 30_000 }: Limit): Promise<void> {
  const ids = Array.from({ length: fits + 1 }, (_, id) => `e${id}`)
  const call = (command: string, id: string): Promise<Reply> => node.call(command, id, ipam, { timeoutMs: 120_000 })
  const replies = await Promise.all(ids.map(id => call('ADD', id)))
  const served = replies.filter(each => each.exitCode === 0)
  const text = replies.map(each => each.stdout).join('\n')
  assert.equal(served.length, fits, text)
  assert.equal(new Set(served.map(addressOf)).size, fits, text)
  const refused = replies.find(each => each.exitCode !== 0)!
  assert.equal(refused.json.code, 102, refused.stdout)
  assert.match(refused.json.msg!, message)
  const waiting = ids[replies.indexOf(refused)]!
  const again = await call('ADD', waiting)
  assert.equal(again.json.code, 102, again.stdout)
  assert.match(again.json.msg!, message)
  assert.equal((await call('DEL', ids[replies.indexOf(served[0]!)]!)).exitCode, 0)
  // As the kubelet does: a pod that was refused is tried again.
  await until(async () => (await call('ADD', waiting)).exitCode === 0, 'the next pod', nextMs)
  for (const id of ids) assert.equal((await call('DEL', id)).exitCode, 0)
}

/** A subnet whose addresses are ten apart, so that no two of them are one pair or one route; and a port with another one. */
export async function makeSparseSubnet(
  { neutron }: CloudSession,
  network_id: string,
  prefix: string,
): Promise<{ subnetId: string; hostPort: string }> {
  const limits = { deadline: deadlineIn(60_000) }
  const addresses = Array.from({ length: 24 }, (_, at) => `${prefix}.${10 * (at + 1)}`)
  const allocation_pools = addresses.map(each => ({ start: each, end: each }))
  const subnet = { network_id, ip_version: 4, cidr: `${prefix}.0/24`, enable_dhcp: false, allocation_pools } as const
  const { id } = await neutron.subnets.create(subnet, limits)
  const fixed_ips = [{ subnet_id: id, ip_address: `${prefix}.5` }]
  return { subnetId: id, hostPort: (await neutron.ports.create({ network_id, fixed_ips }, limits)).id }
}
