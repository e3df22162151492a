// SPDX-License-Identifier: Apache-2.0

import { setTimeout as sleep } from 'node:timers/promises'
import { OpenStackError } from '#openstack'
import type { MadeObject, ObjectDriver, ObjectRequest } from './object.ts'

/** What a test does to one creation: refuse it for want of room or of a place, fail it, lose its answer, or lose it. */
export type DriverMishap = 'full' | 'gone' | 'unavailable' | 'lostAnswer' | 'lost'

export type FakeDriver = ObjectDriver & {
  /** What the cloud has, by mark. */
  readonly objects: Map<string, MadeObject>
  /** How many each creation asked for. */
  readonly created: number[]
  readonly removed: string[]
  /** `mark owner` for each description, `mark` for each cleaning. */
  readonly described: string[]
  lists: number
  capacity: number
  /** One after the other, for the next creations. */
  readonly mishaps: DriverMishap[]
  /** What a list leaves out. */
  hidden: (object: MadeObject) => boolean
  latencyMs: number
}

const refusal = (kind: 'quota' | 'transient', effect: 'none' | 'unknown') =>
  new OpenStackError({
    service: 'neutron',
    action: 'create ports',
    reason: kind === 'quota' ? 'Quota exceeded' : 'no answer',
    status: kind === 'quota' ? 409 : 0,
    type: kind === 'quota' ? 'OverQuota' : 'TimeOut',
    kind,
    effect,
  })

const noPlace = new OpenStackError({
  ...{ service: 'neutron', action: 'create ports', reason: 'Subnet s4 could not be found' },
  ...{ status: 404, type: 'SubnetNotFound', kind: 'missing', effect: 'none' },
})

/** A cloud that makes objects, all or nothing, up to a capacity. */
export function fakeDriver({
  capacity = 1_000,
  batchMax = 64,
}: {
  capacity?: number
  batchMax?: number
} = {}): FakeDriver {
  let next = 1
  const fake: FakeDriver = {
    objects: new Map(),
    created: [],
    removed: [],
    described: [],
    lists: 0,
    capacity,
    mishaps: [],
    hidden: () => false,
    latencyMs: 1,
    batchMax,
    parallel: 4,
    async create(requests) {
      fake.created.push(requests.length)
      const mishap = fake.mishaps.shift()
      await sleep(fake.latencyMs)
      if (mishap === 'unavailable') throw refusal('transient', 'none')
      if (mishap === 'gone') throw noPlace
      if (mishap === 'lost') throw refusal('transient', 'unknown')
      if (mishap === 'full' || fake.objects.size + requests.length > fake.capacity) throw refusal('quota', 'none')
      const made = requests.map(make)
      for (const each of made) fake.objects.set(each.mark, each)
      if (mishap === 'lostAnswer') throw refusal('transient', 'unknown')
      return made
    },
    async list() {
      fake.lists++
      await sleep(fake.latencyMs)
      return [...fake.objects.values()].filter(each => !fake.hidden(each))
    },
    async remove({ mark }) {
      await sleep(fake.latencyMs)
      if (fake.objects.delete(mark)) fake.removed.push(mark)
    },
    async describe({ mark }, owner) {
      fake.described.push(`${mark} ${owner.containerId}`)
    },
    async recycle(objects) {
      fake.described.push(...objects.map(each => each.mark))
    },
  }
  const make = ({ mark }: ObjectRequest): MadeObject => ({
    id: `id-${mark}`,
    mark,
    addresses: [{ subnetId: 's4', address: `10.0.${next >> 8}.${next++ & 255}` }],
    mac: 'fa:16:3e:00:00:01',
    detail: '',
  })
  return fake
}
