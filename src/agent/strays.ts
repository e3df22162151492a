// SPDX-License-Identifier: Apache-2.0

import { listAttachments } from '#allocator'
import { EINVAL, EOPNOTSUPP } from '#libc'
import { NetlinkError } from '#netlink'
import { OWNER_PREFIX, type World } from '#plugins'

/** What a round has come to, in words: elements of the firewall that were removed, and others that nobody knows of. */
export type StrayRound = { readonly removed: readonly string[]; readonly kept: readonly string[] }

/**
 * Looks after an agent's start for elements of the firewall that no record knows of, because the journal was lost. Those
 * whose link is gone are removed when they are seen so a second time; others may be of living containers, and stay until
 * then. Once there are none it looks no more.
 */
export class Strays {
  readonly #world: World
  #suspects: readonly string[] = []
  #told = new Set<string>()
  #isDone = false

  constructor(world: World) {
    this.#world = world
  }

  /** @returns what was removed, and what is kept and was not told of before */
  async round(): Promise<StrayRound> {
    if (this.#isDone) return { removed: [], kept: [] }
    const { host } = this.#world
    const known = knownOf(this.#world)
    const strays = await host.listStrays(known).catch((error: unknown) => {
      if (isUnknown(error)) return []
      throw error
    })
    const dead = strays.filter(({ isDead }) => isDead).map(({ text }) => text)
    const removed = dead.filter(text => this.#suspects.includes(text))
    // What is known now was not, perhaps, when the elements were read: a record comes before its elements.
    if (removed.length > 0) await host.removeStrays({ ...knownOf(this.#world), texts: removed })
    const kept = strays.flatMap(({ isDead, text }) => (isDead || this.#told.has(text) ? [] : [text]))
    for (const text of kept) this.#told.add(text)
    this.#suspects = dead
    this.#isDone = strays.length === removed.length
    return { removed, kept }
  }
}

/** This kernel has no nf_tables: nobody has anything there. */
const isUnknown = (error: unknown): boolean =>
  error instanceof NetlinkError && (error.errno === EINVAL || error.errno === EOPNOTSUPP)

type Marks = { hostLink?: string; owner?: string; answers?: { owner?: string } | null }

/** Links and owners that stand in the journal. */
function knownOf({ journal }: World) {
  const all = listAttachments(journal).map(({ traces }) => JSON.parse(traces) as Marks | null)
  return {
    links: all.flatMap(traces => traces?.hostLink ?? []),
    owners: all.flatMap(traces => [traces?.owner, traces?.answers?.owner].filter(owner => owner !== undefined)),
    ownerPrefix: OWNER_PREFIX,
  }
}
