// SPDX-License-Identifier: Apache-2.0

import { setTimeout as sleep } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import { type FixedIp, type FixedIpRequest, type FloatingIp, OpenStackError, type Port } from '#openstack'
import type { PortNeutron } from './round-options.ts'

/**
 * What a test does to one request: fail before it, lose the answer after it, make it again as after a deadlock in the database
 * and past `If-Match`, show an older port, or without two, all or these addresses.
 */
export type Mishap =
  | 'refused'
  | 'unavailable'
  | 'lostAnswer'
  | 'repeated'
  | 'stale'
  | 'partial'
  | 'empty'
  | { readonly without: readonly string[] }

export type FakePort = PortNeutron & {
  readonly id: string
  /** What Neutron has, sorted as strings as it answers them. */
  addresses(): string[]
  /** Requests so far, by name. */
  readonly calls: { get: number; put: number; list: number; disassociate: number }
  /** Addresses that each write asked to add. */
  readonly added: number[]
  /** One after the other, for the next requests of that kind. */
  readonly mishaps: { get: Mishap[]; put: Mishap[] }
  latencyMs: number
  /** Somebody else adds an address. */
  addForeign(address: string): void
  removeForeign(address: string): void
  /** The database is that of another day: two addresses, and a revision long past. */
  restoreOlder(): void
  /** Somebody else points a floating IP at an address. */
  bind(address: string): void
  /** Called within a write, between reading the port and changing it. */
  onPut: (() => void) | undefined
}

/** One port with `capacity` addresses to be had in subnet `s4`, and the writes of Neutron: whole lists, bare entries that reuse, weak If-Match. */
export function fakePort({
  capacity = 200,
  subnets = ['s4'],
}: {
  capacity?: number
  subnets?: string[]
} = {}): FakePort {
  const id = 'port-1'
  let fixedIps: FixedIp[] = subnets.map(subnet => ({ subnet_id: subnet, ip_address: addressIn(subnet, 10) }))
  let revision = 5
  let before: { fixedIps: FixedIp[]; revision: number } = { fixedIps, revision }
  const floatingIps: FloatingIp[] = []
  const calls = { get: 0, put: 0, list: 0, disassociate: 0 }
  const mishaps: FakePort['mishaps'] = { get: [], put: [] }
  let next = 0

  const show = (state: { fixedIps: FixedIp[]; revision: number }): Port => ({
    id,
    name: 'vm',
    network_id: 'net',
    mac_address: 'fa:16:3e:00:00:01',
    fixed_ips: [...state.fixedIps].sort((a, b) => (a.ip_address < b.ip_address ? -1 : 1)),
    device_id: 'vm',
    device_owner: 'compute:nova',
    status: 'ACTIVE',
    revision_number: state.revision,
  })

  const allocate = (subnet: string, taken: ReadonlySet<string>): FixedIp => {
    for (let tries = 0; tries < capacity; tries++) {
      next = (next + 37) % capacity
      const address = addressIn(subnet, 20 + next)
      if (!taken.has(address)) return { subnet_id: subnet, ip_address: address }
    }
    throw failure(409, 'IpAddressGenerationFailure', 'exhausted')
  }

  const apply = (requests: readonly FixedIpRequest[]): FixedIp[] => {
    const named = requests.flatMap(each =>
      each.ip_address === undefined ? [] : [{ subnet_id: each.subnet_id ?? 's4', ip_address: each.ip_address }],
    )
    const result = [...named]
    const taken = () => new Set([...fixedIps, ...result].map(each => each.ip_address))
    const reusable = fixedIps.filter(each => !named.some(other => other.ip_address === each.ip_address))
    for (const request of requests) {
      if (request.ip_address !== undefined) continue
      const index = reusable.findIndex(each => each.subnet_id === request.subnet_id)
      result.push(index >= 0 ? reusable.splice(index, 1)[0]! : allocate(request.subnet_id, taken()))
    }
    return result
  }

  const fake: FakePort = {
    id,
    calls,
    added: [],
    mishaps,
    latencyMs: 0,
    onPut: undefined,
    addresses: () => show({ fixedIps, revision }).fixed_ips.map(each => each.ip_address),
    addForeign(address) {
      fixedIps = [...fixedIps, { subnet_id: subnets[0]!, ip_address: address }]
      revision++
    },
    removeForeign(address) {
      fixedIps = fixedIps.filter(each => each.ip_address !== address)
      revision++
    },
    restoreOlder() {
      fixedIps = fixedIps.slice(0, 2)
      revision = 1
    },
    bind(address) {
      floatingIps.push({
        id: `fip-${address}`,
        floating_ip_address: '198.51.100.9',
        floating_network_id: 'ext',
        port_id: id,
        fixed_ip_address: address,
      })
    },
    ports: {
      async get() {
        calls.get++
        await sleep(fake.latencyMs)
        const mishap = mishaps.get.shift()
        if (mishap === 'stale') return show(before)
        if (mishap === 'partial') return show({ fixedIps: fixedIps.slice(0, -2), revision })
        if (mishap === 'empty') return show({ fixedIps: [], revision })
        if (typeof mishap === 'object')
          return show({ fixedIps: fixedIps.filter(each => !mishap.without.includes(each.ip_address)), revision })
        if (mishap !== undefined) throw failure(503, 'HTTPServiceUnavailable', 'transient')
        return show({ fixedIps, revision })
      },
      async update(_id, changes, { ifRevision }) {
        calls.put++
        const read = { fixedIps, revision }
        await sleep(fake.latencyMs)
        const mishap = mishaps.put.shift()
        if (mishap === 'refused') throw failure(0, 'ConnectionFailed', 'transient')
        if (mishap === 'unavailable') throw failure(503, 'HTTPServiceUnavailable', 'transient', 'unknown')
        fake.onPut?.()
        if (mishap !== 'repeated' && ifRevision !== undefined && ifRevision !== revision)
          throw failure(412, 'RevisionNumberConstraintFailed', 'conflict')
        before = read
        const shown = show({ fixedIps, revision }).fixed_ips
        fixedIps = apply(changes.fixed_ips ?? fixedIps)
        revision++
        fake.added.push(fixedIps.length - read.fixedIps.length)
        if (mishap === 'lostAnswer') throw failure(0, 'TimeOut', 'transient', 'unknown')
        const answer = show({ fixedIps, revision })
        // Recorded: a write that changes nothing counts after its answer was made.
        return isDeepStrictEqual(answer.fixed_ips, shown) ? { ...answer, revision_number: revision - 1 } : answer
      },
      async list() {
        calls.list++
        return [show({ fixedIps, revision })]
      },
    },
    subnets: {
      get: async subnet => ({
        id: subnet,
        name: subnet,
        network_id: 'net',
        ip_version: subnet === 's6' ? 6 : 4,
        cidr: subnet === 's6' ? '2001:db8::/64' : '10.0.0.0/16',
        gateway_ip: null,
        allocation_pools: [{ start: addressIn(subnet, 20), end: addressIn(subnet, 19 + capacity) }],
      }),
    },
    floatingIps: {
      async list() {
        calls.list++
        return [...floatingIps]
      },
      async disassociate(fip) {
        calls.disassociate++
        const index = floatingIps.findIndex(each => each.id === fip)
        return floatingIps.splice(index, 1)[0]!
      },
    },
  }
  return fake
}

const addressIn = (subnet: string, host: number) =>
  subnet === 's6' ? `2001:db8::${host.toString(16)}` : `10.0.0.${host}`

const failure = (
  status: number,
  type: string,
  kind: 'transient' | 'conflict' | 'exhausted',
  effect: 'none' | 'unknown' = 'none',
) => new OpenStackError({ service: 'neutron', action: 'update port', reason: type, status, type, kind, effect })
