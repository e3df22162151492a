// SPDX-License-Identifier: Apache-2.0

import {
  forgetReserveAhead,
  type Journal,
  type Limits,
  listKnownPorts,
  listObjectPools,
  listObjects,
  listPortAddresses,
  putReserveAhead,
} from '#allocator'
import { canReserve, settleByHand, type World } from '#plugins'

export type ReserveOptions = {
  /** What to keep free: addresses of each subnet of a port, whole ports of another pool. 0 ends what was asked for before. */
  readonly count: number
  readonly untilMs: number
  /** One pool of several: the id of its Neutron port, or its key. */
  readonly pool?: string | undefined
}

/** What became of one pool. */
export type Reserved = {
  readonly name: string
  /** What is free now, by subnet; of whole ports in one number, under an empty name. */
  readonly free: Readonly<Record<string, number>>
  /** Why it is less than was wanted. */
  readonly error: unknown
}

type Pool = { readonly pool: string; readonly name: string; countFree(): Readonly<Record<string, number>> }

/**
 * Makes addresses ahead, and has them kept until then: before a roll-out. Whoever works on the pool after this, the agent or
 * a process for one call, keeps as many free.
 * @throws {Error} where the journal knows no such pool
 */
export async function reserveAhead(
  world: Parameters<typeof settleByHand>[0] & Pick<World, 'journal'>,
  options: ReserveOptions,
  limits: Limits,
): Promise<Reserved[]> {
  const { count, untilMs } = options
  const done: Reserved[] = []
  for (const { pool, name, countFree } of choosePools(world.journal, options.pool)) {
    if (count === 0) forgetReserveAhead(world.journal, pool)
    else putReserveAhead(world.journal, pool, { count, untilMs })
    const error = await settleByHand(world, pool, limits).catch((thrown: unknown) => thrown)
    const free = countFree()
    const isShort = Object.values(free).some(each => each < count)
    const unknown = new Error(`Cannot keep ${count} free in ${name}: the cloud gave no more, or its limit is reached`)
    done.push({ name, free, error: error ?? (isShort ? unknown : undefined) })
  }
  return done
}

function choosePools(journal: Journal, wanted: string | undefined): Pool[] {
  const pools = [...portPools(journal), ...objectPools(journal)]
  if (pools.length === 0)
    throw new Error(
      'Cannot make a reserve: the journal knows no pool yet. The first pod of a network makes it, or STATUS',
    )
  const found = pools.filter(({ pool }) => wanted === undefined || pool === wanted)
  if (found.length > 0) return found
  const known = pools.map(({ pool, name }) => `${pool} (${name})`)
  throw new Error(`Cannot make a reserve in pool ${wanted}: the journal knows ${known.join(', ')}`)
}

const portPools = (journal: Journal): Pool[] =>
  listKnownPorts(journal).map(({ portId, settings }) => ({
    pool: portId,
    name: `port ${portId}`,
    countFree: () => {
      const free = listPortAddresses(journal, portId).filter(({ state }) => state === 'free')
      const own = settings.subnetIds.map(id => {
        // Where a subnet is full its reserve is of those that stand in for it.
        const subnets = [id, ...(settings.fallbacks?.[id] ?? [])]
        return [id, free.filter(({ subnetId }) => subnets.includes(subnetId)).length] as const
      })
      return Object.fromEntries(own)
    },
  }))

const objectPools = (journal: Journal): Pool[] =>
  listObjectPools(journal)
    .filter(({ kind }) => canReserve(kind))
    .map(({ pool, settings }) => ({
      pool,
      name: settings.name,
      countFree: () => ({ '': listObjects(journal, pool).filter(({ state }) => state === 'free').length }),
    }))
